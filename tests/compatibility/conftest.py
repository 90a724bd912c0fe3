"""What the oracle's DAGs find in their environment, and their runs on the embedded stack, each made once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from temporal_airflow_nb import LocalStack
from tests.compatibility.oracle.catalog import CASES, ENVIRONMENT, PLUGINS, SHARED_PLUGINS, Case
from tests.compatibility.oracle.here import create_pools, run_here

# Before the session's stack starts, whose processes inherit it.
os.environ.update(ENVIRONMENT)

AT_ONCE = 6


@pytest.fixture(scope="session")
def results_here(request, stack, tmp_path_factory) -> Callable[[Case], dict[str, Any]]:
    """Return a function that runs a file's DAGs the first time it is asked, and remembers.

    Examples spend much of their time asleep: with the first one, all that the session asks for begin.
    """
    create_pools(stack, tmp_path_factory.mktemp("pools") / "pools.json")
    for case in _asked_for(request.session):
        # Imports the package that holds it, which several threads mustn't begin together.
        assert case.folder.is_dir()
    folders = {name: tmp_path_factory.mktemp(name) for name in CASES}
    threads = ThreadPoolExecutor(AT_ONCE)
    known: dict[str, Future[dict[str, Any]]] = {}

    def run(case: Case) -> dict[str, Any]:
        for earlier in case.after:
            known[earlier].result()
        if case.plugins == SHARED_PLUGINS:
            return run_here(stack, case, folders[case.name], case.recorded())
        home = folders[case.name] / "home"
        shutil.copytree(PLUGINS / case.plugins, home / "airflow" / "plugins")
        with LocalStack(home) as apart:
            return run_here(apart, case, folders[case.name], case.recorded())

    def begin(case: Case) -> None:
        for earlier in case.after:
            begin(CASES[earlier])
        if case.name not in known:
            known[case.name] = threads.submit(run, case)

    def results(case: Case) -> dict[str, Any]:
        if case.package is not None:
            for other in _asked_for(request.session):
                if other.package is not None and other.recording.exists():
                    begin(other)
        begin(case)
        return known[case.name].result()

    return results


def _asked_for(session: pytest.Session) -> list[Case]:
    cases = [item.callspec.params.get("case") for item in session.items if hasattr(item, "callspec")]
    return [case for case in cases if isinstance(case, Case)]
