"""Tests that random DAGs have the same results as on native Airflow, recorded and new ones."""

from __future__ import annotations

import json
import secrets
import shutil

import pytest

from tests.compatibility.dags.random_lib import dag_id_of, random_dag
from tests.compatibility.oracle.catalog import DAGS, RANDOM, Case
from tests.compatibility.oracle.compare import compare, report
from tests.compatibility.oracle.embedded import run_embedded
from tests.compatibility.oracle.native import run_natively
from tests.compatibility.oracle.suite import check, parameters
from tests.support.stack_helpers import with_client

LIVE = 8


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dag_id"), parameters(RANDOM))
def test_a_random_dag_has_the_native_result(case, dag_id, embedded_results):
    source = random_dag(int(dag_id.removeprefix("random_"))).source if dag_id else ""
    check(case, dag_id, embedded_results, source=source)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            id=case.name,
            marks=pytest.mark.timeout(case.timeout + 120),
        )
        for case in RANDOM
    ],
)
def test_each_pass_makes_all_possible_decisions(case, stack, embedded_results):
    """A workflow without running activities whose run hasn't ended checks every task instance after a while."""
    embedded_results(case)

    async def histories(client):
        found = {}
        async for execution in client.list_workflows('WorkflowType = "ExecuteAirflowDagDeepWorkflow"'):
            if any(execution.id.startswith(f"airflow-{dag_id}-") for dag_id in case.recorded()):
                handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
                found[execution.id] = await handle.fetch_history()
        return found

    found = with_client(stack, histories)
    assert len(found) >= len(case.recorded())
    timers = [
        (workflow_id, json.loads(event.user_metadata.summary.data))
        for workflow_id, history in found.items()
        for event in history.events
        if event.HasField("timer_started_event_attributes")
    ]
    assert [timer for timer in timers if timer[1] == "looks again"] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_new_random_dags_have_the_native_result(request, stack, tmp_path):
    first = request.config.getoption("--seed")
    first = secrets.randbelow(1_000_000) if first is None else first
    folder = tmp_path / "dags"
    shutil.copytree(DAGS / "random_lib", folder / "random_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "random_live.py").write_text(
        '"""Random DAGs for Airflow."""\n\n'
        "from random_lib import load\n\n"
        f"load(range({first}, {first + LIVE}), __file__)\n",
        encoding="utf-8",
    )
    case = Case("random_live", place=folder, brief=True, timeout=240)
    [(_, native)] = run_natively([case])
    embedded = run_embedded(stack, case, tmp_path, native)
    reports = [f"run these again with --seed {first}"]
    for seed in range(first, first + LIVE):
        dag_id = dag_id_of(seed)
        if differences := compare(native[dag_id], embedded[dag_id]):
            reports.append("\n".join([report(dag_id, differences), random_dag(seed).source]))
    if len(reports) > 1:
        pytest.fail("\n".join(reports), pytrace=False)
