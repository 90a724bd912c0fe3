"""Tests that Airflow's example DAGs have the same results as on native Airflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compatibility.oracle.catalog import CORE, EXAMPLES, EXCLUDED, STANDARD, Case
from tests.compatibility.oracle.suite import check, parameters


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dag_id"), parameters(EXAMPLES))
def test_an_example_has_the_native_result(case, dag_id, embedded_results):
    check(case, dag_id, embedded_results)


def test_every_example_is_run_or_excluded_with_a_reason():
    shipped = {
        file.stem
        for package in (CORE, STANDARD)
        for file in Path(Case("", package).folder).glob("*.py")
        if file.stem != "__init__"
    }
    assert {case.name for case in EXAMPLES} | EXCLUDED.keys() == shipped
    assert all(EXCLUDED.values())
