"""The example DAGs that Airflow ships end here as they end natively."""

from __future__ import annotations

import pytest

from tests.oracle.catalog import EXAMPLES
from tests.oracle.suite import check, parameters


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dag_id"), parameters(EXAMPLES))
def test_example_ends_as_natively(case, dag_id, results_here):
    check(case, dag_id, results_here)
