"""The workflow that a Temporal Schedule starts, to create the due runs of a DAG.

It runs in the worker that serves the default queue, and is replayed after the loss of a worker: it uses only Temporal's
clock and timers.
"""

from __future__ import annotations

from temporalio import workflow

from temporal_airflow_nb.orchestration.workflow.activity_calls import run_transaction
from temporal_airflow_nb.orchestration.workflow.models import DUE_WORKFLOW, DueRuns

_MAX_CLOCK_DIFFERENCE = 5.0
"""Seconds."""


@workflow.defn(name=DUE_WORKFLOW, sandboxed=False)
class CreateDueDagRunsWorkflow:
    """Creates the due runs of a DAG."""

    @workflow.run
    async def run(self, dag_id: str) -> int:
        """Create the runs; return how many were created."""
        due: DueRuns = await run_transaction("create_due_runs", dag_id, DueRuns)
        if due.created == 0 and due.next_in is not None and due.next_in <= _MAX_CLOCK_DIFFERENCE:
            # The Schedule fires at whole seconds, and the clock of Temporal's server may be ahead of the worker's.
            await workflow.sleep(due.next_in + 0.01, summary="waits for Airflow's clock")
            due = await run_transaction("create_due_runs", dag_id, DueRuns)
        return due.created
