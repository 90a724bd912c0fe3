"""Tests that each construct of a DAG has the same effect as on native Airflow."""

from __future__ import annotations

import pytest

from tests.compatibility.oracle.catalog import SEMANTICS
from tests.compatibility.oracle.suite import check, parameters


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dag_id"), parameters(SEMANTICS))
def test_a_dag_has_the_native_result(case, dag_id, embedded_results):
    check(case, dag_id, embedded_results)
