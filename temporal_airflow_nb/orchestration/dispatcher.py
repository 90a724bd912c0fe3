"""Delivers the outbox to Temporal, and repairs what a crash left between the two."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import structlog
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from temporal_airflow_nb.config import history_limit, workflow_id
from temporal_airflow_nb.orchestration import outbox
from temporal_airflow_nb.orchestration.launch import start_queued_runs
from temporal_airflow_nb.orchestration.models import DEEP_WORKFLOW, RESYNC_SIGNAL, WAKE_SIGNAL, DagRunInput
from temporal_airflow_nb.tasks.database import reading, transaction

log = structlog.get_logger(__name__)

_POLL_SECONDS = 1.0
_RECONCILE_SECONDS = 30.0


class Dispatcher:
    """
    Runs beside the worker; one delivers at a time, several do no harm.

    Parameters
    ----------
    client
        Temporal's client.
    task_queue
        The queue of the workers that execute the runs.
    """

    def __init__(self, client: Client, task_queue: str) -> None:
        self.client = client
        self.task_queue = task_queue
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Say, from any thread, that there is something to deliver."""
        self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Deliver and reconcile until cancelled."""
        next_reconcile = self._loop.time()
        while True:
            try:
                if self._loop.time() >= next_reconcile:
                    await self.reconcile()
                    next_reconcile = self._loop.time() + _RECONCILE_SECONDS
                await self.deliver()
            except Exception as error:
                log.warning("Could not deliver to Temporal; trying again", error=repr(error))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _POLL_SECONDS)
            self._wake.clear()

    async def deliver(self) -> int:
        """Deliver everything in the outbox; return how much there was."""
        messages = await asyncio.to_thread(_waiting)
        by_run: dict[tuple[str, str], list[outbox.Message]] = {}
        for message in messages:
            by_run.setdefault((message.dag_id, message.run_id), []).append(message)
        await asyncio.gather(*(self._tell(*run, of_run) for run, of_run in by_run.items()))
        if messages:
            await asyncio.to_thread(_delivered, [message.id for message in messages])
        return len(messages)

    async def _tell(self, dag_id: str, run_id: str, messages: list[outbox.Message]) -> None:
        """Tell a run once what several messages say."""
        kinds = {message.kind for message in messages}
        if outbox.START in kinds:
            await self.start(dag_id, run_id)
        elif kinds == {outbox.WAKE}:
            tasks = dict.fromkeys(message.task_id for message in messages if message.task_id)
            await self.signal(dag_id, run_id, WAKE_SIGNAL, list(tasks))
        else:
            await self.signal(dag_id, run_id, RESYNC_SIGNAL)

    async def start(self, dag_id: str, run_id: str) -> None:
        """Start a run's workflow; one that runs already is told to look again."""
        await self.client.start_workflow(
            DEEP_WORKFLOW,
            DagRunInput(dag_id, run_id, drain_at=history_limit()),
            id=workflow_id(dag_id, run_id),
            task_queue=self.task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            start_signal=RESYNC_SIGNAL,
            static_summary=f"{dag_id} · {run_id}"[:200],
        )

    async def signal(self, dag_id: str, run_id: str, name: str, *arguments: Any) -> None:
        """Tell a run's workflow to look at the database; start it if the run goes on without one."""
        try:
            await self.client.get_workflow_handle(workflow_id(dag_id, run_id)).signal(name, *arguments)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            if (dag_id, run_id) in await asyncio.to_thread(_unfinished):
                await self.start(dag_id, run_id)

    async def reconcile(self) -> None:
        """See that each run of ours that Airflow holds to be running has a workflow, and start what is queued."""
        for dag_id, run_id in await asyncio.to_thread(_unfinished):
            if not await self._is_open(workflow_id(dag_id, run_id)):
                log.info("Starting the workflow of a run that had none", dag_id=dag_id, run_id=run_id)
                await self.start(dag_id, run_id)
        await asyncio.to_thread(start_queued_runs)

    async def _is_open(self, workflow: str) -> bool:
        try:
            description: Any = await self.client.get_workflow_handle(workflow).describe()
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return False
            raise
        return description.status == WorkflowExecutionStatus.RUNNING


def _waiting() -> list[outbox.Message]:
    with reading() as session:
        return outbox.waiting(session)


def _delivered(ids: list[int]) -> None:
    with transaction() as session:
        outbox.delivered(ids, session)


def _unfinished() -> set[tuple[str, str]]:
    with reading() as session:
        return {(row.dag_id, row.run_id) for row in outbox.unfinished(session)}
