"""Fixtures of the oracle: the environment of its DAGs, and their runs on the embedded stack, each executed once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from temporal_airflow_nb import LocalStack
from tests.compatibility.oracle.catalog import CASES, ENVIRONMENT, PLUGINS, SHARED_PLUGINS, Case
from tests.compatibility.oracle.embedded import create_pools, run_embedded

# Before the session's stack starts: its processes inherit the environment.
os.environ.update(ENVIRONMENT)

AT_ONCE = 6


@pytest.fixture(scope="session")
def embedded_results(request, stack, tmp_path_factory) -> Callable[[Case], dict[str, Any]]:
    """Return a function that runs the DAGs of a file on its first call and remembers the results.

    The example DAGs mostly sleep: the first one starts all examples that the session will need.
    """
    create_pools(stack, tmp_path_factory.mktemp("pools") / "pools.json")
    for case in _asked_for(request.session):
        # This imports the package that contains the file; several threads must not start that import together.
        assert case.folder.is_dir()
    folders = {name: tmp_path_factory.mktemp(name) for name in CASES}
    threads = ThreadPoolExecutor(AT_ONCE)
    known: dict[str, Future[dict[str, Any]]] = {}

    def run(case: Case) -> dict[str, Any]:
        for earlier in case.after:
            known[earlier].result()
        if case.plugins == SHARED_PLUGINS:
            return run_embedded(stack, case, folders[case.name], case.recorded())
        home = folders[case.name] / "home"
        shutil.copytree(PLUGINS / case.plugins, home / "airflow" / "plugins")
        with LocalStack(home) as separate_stack:
            return run_embedded(separate_stack, case, folders[case.name], case.recorded())

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
