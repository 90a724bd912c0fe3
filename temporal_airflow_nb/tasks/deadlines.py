"""Handles missed deadlines of runs, and runs the callbacks that they queue.

Airflow's scheduler and triggerer do both in a stock Airflow. The worker does it where they don't run.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from airflow._shared.timezones import timezone
from airflow.executors.workloads import ExecuteCallback
from airflow.models.callback import Callback, CallbackType
from airflow.models.dagrun import DagRun
from airflow.models.deadline import Deadline
from airflow.sdk.execution_time.callback_supervisor import CallbackSubprocess, _configure_logging
from airflow.utils.state import CallbackState
from sqlalchemy import func, select

from temporal_airflow_nb.tasks.database import reading, transaction
from temporal_airflow_nb.tasks.supervisor import take_over
from temporal_airflow_nb.tasks.targets import send_workload
from temporal_airflow_nb.tasks.zygotes import Zygotes

if TYPE_CHECKING:
    from airflow.sdk.api.client import Client

log = structlog.get_logger(__name__)


def queue_missed_deadlines() -> datetime | None:
    """Queue the callbacks of deadlines that have passed, and return the time of the next one."""
    open_deadlines = select(func.min(Deadline.deadline_time)).where(~Deadline.missed)
    with reading() as session:
        earliest = session.scalar(open_deadlines)
    if earliest is None or earliest > timezone.utcnow():
        return earliest
    # `skip_locked`: several workers, or a scheduler, may do this at the same time. Each deadline has one winner.
    with transaction() as session:
        for deadline in session.scalars(
            select(Deadline)
            .where(Deadline.deadline_time <= timezone.utcnow(), ~Deadline.missed)
            .with_for_update(of=Deadline, skip_locked=True)
        ):
            deadline.handle_miss(session)
        session.flush()
        return session.scalar(open_deadlines)


def list_callback_triggers() -> list[int]:
    """Return the ids of the triggers that run asynchronous callbacks."""
    with reading() as session:
        return list(session.scalars(select(Callback.trigger_id).where(Callback.trigger_id.is_not(None))))


def claim_callbacks() -> list[ExecuteCallback]:
    """Claim the callbacks that need a process: set their state to queued and return their workloads."""
    waiting = select(Callback).where(
        Callback.type == CallbackType.EXECUTOR, Callback.state == CallbackState.PENDING
    )
    with reading() as session:
        if session.scalar(waiting.limit(1)) is None:
            return []
    workloads = []
    with transaction() as session:
        for callback in session.scalars(waiting.with_for_update(skip_locked=True)):
            dag_run = session.get(DagRun, int(callback.data["dag_run_id"]))
            if dag_run is None:
                callback.state, callback.output = CallbackState.FAILED, "The callback's run was deleted."
                continue
            workloads.append(ExecuteCallback.make(callback=callback, dag_run=dag_run))
            callback.state = CallbackState.QUEUED
    return workloads


def run_callback(workload: ExecuteCallback, zygotes: Zygotes, client: Client) -> None:
    """Run a callback in a process of its own, serve the process in this thread, and record the outcome."""
    callback_id = UUID(str(workload.callback.id))
    _record(callback_id, CallbackState.RUNNING)
    child, pipes = zygotes.spawn("callback")
    logger, log_file = _configure_logging(str(workload.log_path), client)
    try:
        # The process was forked before this callback was known, so that it reads its workload from the pipe. The pipe
        # carries nothing else yet: the supervisor starts to read it below.
        send_workload(pipes.requests, workload.model_dump_json())
        supervisor: Any = take_over(
            CallbackSubprocess, child, pipes, process_log=logger, id=callback_id, client=client
        )
        succeeded = supervisor.wait() == 0
    finally:
        log_file.close()
        for end in (*pipes, child):
            end.close()
    _record(callback_id, CallbackState.SUCCESS if succeeded else CallbackState.FAILED)


def _record(callback_id: UUID, state: CallbackState) -> None:
    with transaction() as session:
        callback = session.get(Callback, callback_id)
        if callback is not None:
            callback.state = state
