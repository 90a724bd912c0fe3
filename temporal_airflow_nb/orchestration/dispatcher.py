"""Delivers the outbox to Temporal, and repairs what a crash left between the two."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import structlog
from airflow.configuration import conf
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from temporal_airflow_nb.config.environment import history_limit, workflow_id
from temporal_airflow_nb.orchestration.outbox import managed_runs, outbox, rollout
from temporal_airflow_nb.orchestration.run_creation.launch import start_queued_runs
from temporal_airflow_nb.orchestration.workflow.models import (
    DEEP_WORKFLOW,
    RESYNC_SIGNAL,
    WAKE_SIGNAL,
    DagRunInput,
)
from temporal_airflow_nb.tasks.database import reading, transaction

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.1
# Everything that writes to the outbox then is this process, which says so.
_POLL_SECONDS_ALONE = 1.0
_LONGEST_PAUSE = 2.0
_RECONCILE_SECONDS = 30.0
_AT_ONCE = 8


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
        await asyncio.gather(self._deliver_always(), self._reconcile_always())

    async def _deliver_always(self) -> None:
        often = _POLL_SECONDS_ALONE if rollout.is_alone() else _POLL_SECONDS
        pause = often
        while True:
            try:
                await self.deliver()
                pause = often
            except Exception as error:
                log.warning("Could not deliver to Temporal; trying again", error=repr(error))
                pause = min(max(2 * pause, 0.5), _LONGEST_PAUSE)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
            self._wake.clear()

    async def _reconcile_always(self) -> None:
        while True:
            try:
                await self.reconcile()
            except Exception as error:
                log.warning("Could not compare runs with workflows; trying again", error=repr(error))
            await asyncio.sleep(_RECONCILE_SECONDS)

    async def deliver(self) -> int:
        """Deliver everything in the outbox; return how much there was."""
        messages, running = await asyncio.to_thread(_claim)
        if not messages:
            return 0
        by_run: dict[tuple[str, str], list[outbox.Message]] = {}
        for message in messages:
            by_run.setdefault((message.dag_id, message.run_id), []).append(message)
        told: list[Any] = [self._tell(*run, of_run, run in running) for run, of_run in by_run.items()]
        if any(message.kind == outbox.QUEUED for message in messages):
            told.append(asyncio.to_thread(start_queued_runs))
        outcomes = await asyncio.gather(*told, return_exceptions=True)
        failed = {
            run for run, error in zip(by_run, outcomes, strict=False) if isinstance(error, BaseException)
        }
        await asyncio.to_thread(
            _settle,
            [message.id for run in by_run if run not in failed for message in by_run[run]],
            [message.id for run in failed for message in by_run[run]],
        )
        for error in outcomes:
            if isinstance(error, BaseException):
                raise error
        return len(messages)

    async def _tell(self, dag_id: str, run_id: str, messages: list[outbox.Message], is_running: bool) -> None:
        """Tell a run once what several messages say."""
        kinds = {message.kind for message in messages} - {outbox.QUEUED}
        if outbox.START in kinds:
            # One that has ended, or is gone, was started by somebody who died before saying so.
            if is_running:
                await self.start(dag_id, run_id)
        elif kinds == {outbox.WAKE}:
            tasks = dict.fromkeys(message.task_id for message in messages if message.task_id)
            await self.signal(dag_id, run_id, WAKE_SIGNAL, list(tasks))
        elif kinds:
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
            static_details=_way_back(dag_id, run_id),
        )

    async def signal(self, dag_id: str, run_id: str, name: str, *arguments: Any) -> None:
        """Tell a run's workflow to look at the database; start it if the run goes on without one."""
        try:
            await self.client.get_workflow_handle(workflow_id(dag_id, run_id)).signal(name, *arguments)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            if await asyncio.to_thread(_unfinished, [(dag_id, run_id)]):
                await self.start(dag_id, run_id)

    async def reconcile(self) -> None:
        """See that each run of ours that Airflow holds to be running has a workflow, and start what is queued."""
        await asyncio.to_thread(start_queued_runs)
        turn = asyncio.Semaphore(_AT_ONCE)

        async def see_to(dag_id: str, run_id: str) -> None:
            async with turn:
                if not await self._is_open(workflow_id(dag_id, run_id)):
                    log.info("Starting the workflow of a run that had none", dag_id=dag_id, run_id=run_id)
                    await self.start(dag_id, run_id)

        await asyncio.gather(*(see_to(*run) for run in await asyncio.to_thread(_unfinished)))

    async def _is_open(self, workflow: str) -> bool:
        try:
            description: Any = await self.client.get_workflow_handle(workflow).describe()
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return False
            raise
        return description.status == WorkflowExecutionStatus.RUNNING


def _way_back(dag_id: str, run_id: str) -> str | None:
    """Return a link to the run in Airflow's UI, as Temporal's UI shows one."""
    base = (conf.get("api", "base_url", fallback=None) or "").rstrip("/")
    if not base:
        return None
    return f"[Open in Airflow]({base}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')})"


def _claim() -> tuple[list[outbox.Message], set[tuple[str, str]]]:
    """Return the messages that are to be delivered now, and which of their runs are running."""
    with reading() as session:
        if not outbox.are_waiting(session):
            return [], set()
    with transaction() as session:
        messages = outbox.claim(session)
        return messages, managed_runs.list_unfinished_runs(
            session, {(message.dag_id, message.run_id) for message in messages}
        )


def _settle(arrived: list[int], failed: list[int]) -> None:
    with transaction() as session:
        outbox.delivered(arrived, session)
        outbox.give_back(failed, session)


def _unfinished(among: list[tuple[str, str]] | None = None) -> set[tuple[str, str]]:
    with reading() as session:
        return managed_runs.list_unfinished_runs(session, among)
