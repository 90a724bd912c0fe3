"""What a DAG can say means here what it means natively."""

from __future__ import annotations

import pytest

from tests.compatibility.oracle.catalog import SEMANTICS
from tests.compatibility.oracle.suite import check, parameters


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dag_id"), parameters(SEMANTICS))
def test_dag_means_what_it_means_natively(case, dag_id, results_here):
    check(case, dag_id, results_here)
