"""Random DAGs end here as they end natively: many as recorded, and a few new ones live."""

from __future__ import annotations

import json
import secrets
import shutil

import pytest

from tests.compatibility.dags.random_lib import dag_id_of, random_dag
from tests.compatibility.oracle.catalog import DAGS, RANDOM, Case
from tests.compatibility.oracle.compare import compare, report
from tests.compatibility.oracle.here import run_here
from tests.compatibility.oracle.native import run_natively
from tests.compatibility.oracle.suite import check, parameters
from tests.support.stack_helpers import with_client

LIVE = 12


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dag_id"), parameters(RANDOM))
def test_random_dag_ends_as_natively(case, dag_id, results_here):
    source = random_dag(int(dag_id.removeprefix("random_"))).source if dag_id else ""
    check(case, dag_id, results_here, source=source)


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
def test_each_pass_finds_all_that_can_be_decided(case, stack, results_here):
    """A workflow of which nothing is under way, and whose run hasn't ended, looks at everything after a while."""
    results_here(case)

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
def test_new_random_dags_end_as_natively(request, stack, tmp_path):
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
    ours = run_here(stack, case, tmp_path, native)
    reports = [f"run these again with --seed {first}"]
    for seed in range(first, first + LIVE):
        dag_id = dag_id_of(seed)
        if differences := compare(native[dag_id], ours[dag_id]):
            reports.append("\n".join([report(dag_id, differences), random_dag(seed).source]))
    if len(reports) > 1:
        pytest.fail("\n".join(reports), pytrace=False)
