"""Deliver the outbox to Temporal, and start the workflows that running runs lack after a crash.

It runs in the worker process that executes workflows, on the worker's event loop; its queries run in threads. Several
worker processes may each run one: rows of the outbox are claimed, and starting a workflow twice starts it once. A
message is claimed in one transaction, delivered without one, and deleted in another, so that a dispatcher that dies in
between delivers it again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import structlog
from airflow.configuration import conf
from sqlalchemy.exc import SQLAlchemyError
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
# Without an Airflow scheduler only this process writes to the outbox, and `wake` follows each of its commits.
_POLL_SECONDS_WITHOUT_SCHEDULER = 1.0
_MAX_PAUSE_SECONDS = 2.0
_RECONCILE_SECONDS = 30.0
_MAX_CONCURRENT_REQUESTS = 8
# Errors while the database or Temporal can't be reached; the loops log any other error with its traceback.
_OUTAGE = (SQLAlchemyError, RPCError)


class Dispatcher:
    """
    The loops that deliver messages and compare runs with workflows, beside a worker.

    Dispatchers of several workers may run at the same time.

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
        """Deliver soon; may be called from any thread."""
        # Listeners of the outbox run in the thread that commits, mostly a thread of a transaction.
        self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Deliver and reconcile until cancelled."""
        await asyncio.gather(self._deliver_repeatedly(), self._reconcile_repeatedly())

    async def _deliver_repeatedly(self) -> None:
        interval = (
            _POLL_SECONDS_WITHOUT_SCHEDULER if rollout.runs_without_airflow_scheduler() else _POLL_SECONDS
        )
        pause = interval
        while True:
            try:
                await self.deliver()
                pause = interval
            except Exception as error:
                # Nothing restarts this loop: an error that ended it would leave every message in the outbox.
                log.warning(
                    "Could not deliver to Temporal; trying again",
                    error=repr(error),
                    exc_info=not isinstance(error, _OUTAGE),
                )
                pause = min(max(2 * pause, 0.5), _MAX_PAUSE_SECONDS)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
            # Before the outbox is read again: a message that commits from here on sets the event again.
            self._wake.clear()

    async def _reconcile_repeatedly(self) -> None:
        while True:
            try:
                await self.reconcile()
            except Exception as error:
                # Nothing restarts this loop either.
                log.warning(
                    "Could not compare runs with workflows; trying again",
                    error=repr(error),
                    exc_info=not isinstance(error, _OUTAGE),
                )
            await asyncio.sleep(_RECONCILE_SECONDS)

    async def deliver(self) -> int:
        """Claim and deliver messages of the outbox; return how many were claimed."""
        messages, running = await asyncio.to_thread(_claim)
        if not messages:
            return 0
        by_run: dict[tuple[str, str], list[outbox.Message]] = {}
        for message in messages:
            by_run.setdefault((message.dag_id, message.run_id), []).append(message)
        deliveries: list[Any] = [
            self._deliver_to(*run, messages_of_run, run in running) for run, messages_of_run in by_run.items()
        ]
        if any(message.kind == outbox.QUEUED for message in messages):
            deliveries.append(asyncio.to_thread(start_queued_runs))
        # With `return_exceptions`, all deliveries have ended before `_settle`, and a failed one keeps only its own
        # messages.
        outcomes = await asyncio.gather(*deliveries, return_exceptions=True)
        # `zip` leaves out the outcome of `start_queued_runs`, which belongs to no run. If it failed, the QUEUED
        # messages are deleted all the same: `reconcile` searches for queued runs again.
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

    async def _deliver_to(
        self, dag_id: str, run_id: str, messages: list[outbox.Message], is_running: bool
    ) -> None:
        """Deliver all messages of one run with one request."""
        # One request is enough: a workflow that starts, or gets RESYNC, evaluates all tasks of the run. A QUEUED
        # message is for `start_queued_runs`.
        kinds = {message.kind for message in messages} - {outbox.QUEUED}
        if outbox.START in kinds:
            # A run that has ended, or was deleted, doesn't start again: the message is left from a dispatcher that
            # died after the delivery.
            if is_running:
                await self.start(dag_id, run_id)
        elif kinds == {outbox.WAKE}:
            tasks = dict.fromkeys(message.task_id for message in messages if message.task_id)
            await self.signal(dag_id, run_id, WAKE_SIGNAL, list(tasks))
        elif kinds:
            await self.signal(dag_id, run_id, RESYNC_SIGNAL)

    async def start(self, dag_id: str, run_id: str) -> None:
        """Start a run's workflow; if it is running, make it read the run's state again."""
        await self.client.start_workflow(
            DEEP_WORKFLOW,
            DagRunInput(dag_id, run_id, drain_at=history_limit()),
            id=workflow_id(dag_id, run_id),
            task_queue=self.task_queue,
            # A workflow of the run that is open gets `start_signal`. One that has ended starts again: a user may have
            # cleared the run.
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            start_signal=RESYNC_SIGNAL,
            static_summary=f"{dag_id} · {run_id}"[:200],
            static_details=_airflow_link(dag_id, run_id),
        )

    async def signal(self, dag_id: str, run_id: str, name: str, *arguments: Any) -> None:
        """Send a signal to a run's workflow; start the workflow if an unfinished run has none."""
        try:
            await self.client.get_workflow_handle(workflow_id(dag_id, run_id)).signal(name, *arguments)
        except RPCError as error:
            # NOT_FOUND: the workflow has ended, or Temporal has lost it together with its data.
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            if await asyncio.to_thread(_list_unfinished_runs, [(dag_id, run_id)]):
                await self.start(dag_id, run_id)

    async def reconcile(self) -> None:
        """Start queued runs, and the workflow of each managed run that is running without one."""
        await asyncio.to_thread(start_queued_runs)
        limit = asyncio.Semaphore(_MAX_CONCURRENT_REQUESTS)

        async def ensure_workflow(dag_id: str, run_id: str) -> None:
            async with limit:
                if not await self._is_open(workflow_id(dag_id, run_id)):
                    log.info("Starting the workflow of a run that had none", dag_id=dag_id, run_id=run_id)
                    await self.start(dag_id, run_id)

        await asyncio.gather(
            *(ensure_workflow(*run) for run in await asyncio.to_thread(_list_unfinished_runs))
        )

    async def _is_open(self, workflow: str) -> bool:
        try:
            description = await self.client.get_workflow_handle(workflow).describe()
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return False
            raise
        return description.status == WorkflowExecutionStatus.RUNNING


def _airflow_link(dag_id: str, run_id: str) -> str | None:
    """Return a Markdown link to the run in Airflow's UI, to show in Temporal's UI."""
    base = (conf.get("api", "base_url", fallback=None) or "").rstrip("/")
    if not base:
        return None
    return f"[Open in Airflow]({base}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')})"


def _claim() -> tuple[list[outbox.Message], set[tuple[str, str]]]:
    """Claim the messages that can be delivered now; return them and their running runs."""
    # A read first: on SQLite `transaction()` takes the write lock, which would keep tasks waiting at each poll.
    with reading() as session:
        if not outbox.has_deliverable(session):
            return [], set()
    with transaction() as session:
        messages = outbox.claim(session)
        return messages, managed_runs.list_unfinished_runs(
            session, {(message.dag_id, message.run_id) for message in messages}
        )


def _settle(delivered: list[int], failed: list[int]) -> None:
    """Delete delivered messages and release failed ones, in one transaction."""
    with transaction() as session:
        outbox.remove_delivered(delivered, session)
        outbox.release(failed, session)


def _list_unfinished_runs(among: list[tuple[str, str]] | None = None) -> set[tuple[str, str]]:
    with reading() as session:
        return managed_runs.list_unfinished_runs(session, among)
