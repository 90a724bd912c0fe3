"""The workflow that a Temporal Schedule starts: it creates the runs of a DAG that are due."""

from __future__ import annotations

from temporalio import workflow

from temporal_airflow_nb.orchestration.workflow.activity_calls import run_transaction
from temporal_airflow_nb.orchestration.workflow.models import DUE_WORKFLOW, DueRuns

_A_MOMENT = 5.0


@workflow.defn(name=DUE_WORKFLOW, sandboxed=False)
class CreateDueDagRunsWorkflow:
    """Creates the runs of a DAG that are due now."""

    @workflow.run
    async def run(self, dag_id: str) -> int:
        """Return how many there were."""
        due = await run_transaction("create_due_runs", dag_id, DueRuns)
        if due.created == 0 and due.next_in is not None and due.next_in <= _A_MOMENT:
            # A fraction of a second is left, or the clock of Temporal's server is ahead of this one.
            await workflow.sleep(due.next_in + 0.01, summary="waits for Airflow's clock")
            due = await run_transaction("create_due_runs", dag_id, DueRuns)
        return due.created
