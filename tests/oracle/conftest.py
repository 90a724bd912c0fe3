"""What the oracle's DAGs find in their environment, and their runs on the embedded stack, each made once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.oracle.catalog import ENVIRONMENT, Case
from tests.oracle.here import create_pools, run_here

# Before the session's stack starts, whose processes inherit it.
os.environ.update(ENVIRONMENT)


@pytest.fixture(scope="session")
def results_here(stack, tmp_path_factory) -> Callable[[Case], dict[str, Any]]:
    """Return a function that runs a file's DAGs the first time it is asked, and remembers."""
    create_pools(stack)
    known: dict[str, dict[str, Any]] = {}

    def results(case: Case) -> dict[str, Any]:
        if case.name not in known:
            folder = tmp_path_factory.mktemp(case.name)
            known[case.name] = run_here(stack, case, folder, case.recorded())
        return known[case.name]

    return results
