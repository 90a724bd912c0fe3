"""The example DAGs that Airflow ships end here as they end natively."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compatibility.oracle.catalog import CORE, EXAMPLES, EXCLUDED, STANDARD, Case
from tests.compatibility.oracle.suite import check, parameters


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dag_id"), parameters(EXAMPLES))
def test_example_ends_as_natively(case, dag_id, results_here):
    check(case, dag_id, results_here)


def test_every_example_is_run_or_excluded_with_a_reason():
    shipped = {
        file.stem
        for package in (CORE, STANDARD)
        for file in Path(Case("", package).folder).glob("*.py")
        if file.stem != "__init__"
    }
    assert {case.name for case in EXAMPLES} | EXCLUDED.keys() == shipped
    assert all(EXCLUDED.values())
