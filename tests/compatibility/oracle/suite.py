"""Turns cases into test parameters."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

import pytest

from tests.compatibility.oracle.catalog import Case
from tests.compatibility.oracle.compare import compare, report


def parameters(cases: Iterable[Case]) -> list[Any]:
    """Return a parameter set for each DAG; a file without a recording gets one that fails."""
    found = []
    for case in cases:
        marks = [pytest.mark.timeout(case.timeout + 120)]
        reasons = [f"needs {module}" for module in case.needs if not _installed(module)]
        if datetime.now(tz=timezone.utc).weekday() not in case.on_days:
            reasons.append("was recorded on a day of the week on which it ends in another way")
        if reasons:
            marks.append(pytest.mark.skip(reason=", ".join(reasons)))
        dag_ids = case.recorded() if case.recording.exists() else [None]
        found += [pytest.param(case, dag_id, id=f"{case.name}-{dag_id}", marks=marks) for dag_id in dag_ids]
    return found


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def check(case: Case, dag_id: str | None, embedded_results: Any, *, source: str = "") -> None:
    """Fail if the DAG's result differs from the native one, and show its ``source``."""
    if dag_id is None:
        pytest.fail(
            f"{case.recording} is missing: record it with `python -m tests.compatibility.oracle.record {case.name}`"
        )
    differences = compare(case.recorded()[dag_id], embedded_results(case)[dag_id])
    if differences:
        pytest.fail("\n".join([report(dag_id, differences), source]), pytrace=False)
