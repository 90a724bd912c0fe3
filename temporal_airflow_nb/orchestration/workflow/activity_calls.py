"""Calls of the activities from the workflow, with their timeouts and retries.

Only workflow code calls it. A replay compares the names and ids of activities, and their order, with the history. The
activities are named by texts, so that the workflow doesn't import Airflow.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError
from temporalio.exceptions import TimeoutError as TemporalTimeoutError

from temporal_airflow_nb.config.environment import task_queue_of, trigger_queue
from temporal_airflow_nb.orchestration.workflow.models import (
    DATABASE_UNAVAILABLE,
    Key,
    RunRef,
    RunTask,
    RunTrigger,
    TaskTry,
)

_MAX_RERUNS = 3
_LONGEST_TRY = timedelta(days=365)
# After this time without a heartbeat, Temporal gives a worker up as lost. Tries send one every two seconds.
_HEARTBEAT = timedelta(seconds=10)
_HEARTBEAT_PER_TRIGGER = timedelta(milliseconds=50)
_ACTIVITY_ID = re.compile(
    r"(?P<task_id>.+?)(\[(?P<map_index>\d+)\])?\.(try(?P<try_number>\d+)|trigger\d+)\.[0-9a-f]+"
)
# For unexpected errors. An unavailable database is none: `run_transaction` waits for it.
_PASS_RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=50), maximum_attempts=5)


def start_try(run: RunRef, task: TaskTry, on_worker_lost: str) -> workflow.ActivityHandle[Any]:
    """Start one try of a task; with ``on_worker_lost="rerun"``, up to three lost workers are replaced."""
    reruns = _MAX_RERUNS if on_worker_lost == "rerun" else 0
    label = _label(task.key)
    return workflow.start_activity(
        "run_airflow_task",
        RunTask(run.dag_id, run.run_id, task, max_reruns=reruns),
        task_queue=task_queue_of(workflow.info().task_queue, task.queue),
        activity_id=f"{label}.try{task.try_number}.{workflow.uuid4().hex[:6]}",
        summary=f"{label} · try {task.try_number} · {task.operator}"[:200],
        start_to_close_timeout=_LONGEST_TRY,
        heartbeat_timeout=_HEARTBEAT,
        retry_policy=RetryPolicy(
            initial_interval=timedelta(milliseconds=200),
            maximum_interval=timedelta(seconds=5),
            maximum_attempts=1 + reruns,
        ),
        # The task's process is still running until the activity has ended: the run must not end before.
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def start_trigger(run: RunRef, key: Key, trigger_id: int, others: int) -> workflow.ActivityHandle[Any]:
    """Start the trigger of a task, beside ``others`` that the run waits for already."""
    label = _label(key)
    return workflow.start_activity(
        "run_trigger",
        RunTrigger(run.dag_id, run.run_id, trigger_id),
        task_queue=trigger_queue(workflow.info().task_queue),
        activity_id=f"{label}.trigger{trigger_id}.{workflow.uuid4().hex[:6]}",
        summary=f"{label} · trigger {trigger_id}"[:200],
        start_to_close_timeout=_LONGEST_TRY,
        # Heartbeats are sent at a tenth of it: the more triggers, the fewer heartbeats each sends, so that a thousand
        # triggers don't keep the server busy.
        heartbeat_timeout=_HEARTBEAT + others * _HEARTBEAT_PER_TRIGGER,
        retry_policy=RetryPolicy(
            initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10)
        ),
        cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
    )


async def run_callbacks(run: RunRef) -> None:
    """Run the callbacks that wait for a run in the database."""
    await workflow.execute_activity(
        "run_callbacks",
        run,
        summary="callbacks",
        start_to_close_timeout=timedelta(days=1),
        heartbeat_timeout=_HEARTBEAT,
        retry_policy=RetryPolicy(maximum_attempts=3),
    )


async def run_transaction(name: str, argument: Any, result_type: Any) -> Any:
    """Run a short transaction as a local activity; repeat it while the database is unavailable."""
    delay = 0.5
    while True:
        try:
            return await workflow.execute_local_activity(
                name,
                argument,
                result_type=result_type,
                start_to_close_timeout=timedelta(minutes=2),
                retry_policy=_PASS_RETRY,
            )
        except ActivityError as error:
            cause = error.cause
            is_unavailable = isinstance(cause, ApplicationError) and cause.type == DATABASE_UNAVAILABLE
            # After a timeout, the transaction may still be running, or may have committed: it can be repeated.
            if not is_unavailable and not isinstance(cause, TemporalTimeoutError):
                raise
        await workflow.sleep(delay, summary="waits for Airflow's database")
        delay = min(delay * 2, 30.0)


def describe_failure(error: ActivityError) -> str:
    """Return in words why an activity ended before its outcome was recorded."""
    cause = error.cause
    if isinstance(cause, TemporalTimeoutError):
        return "its worker stopped sending heartbeats"
    if isinstance(cause, CancelledError):
        return "it was cancelled"
    return str(cause or error)[:500]


def parse_activity_id(activity_id: str) -> tuple[str, int, int | None] | None:
    """Return the task id, map index and try number of an activity; a trigger has no try number.

    >>> parse_activity_id("load[3].try2.0d9c1f"), parse_activity_id("load.trigger7.0d9c1f"), parse_activity_id("1")
    (('load', 3, 2), ('load', -1, None), None)
    """
    match = _ACTIVITY_ID.fullmatch(activity_id)
    if match is None:
        return None
    map_index = -1 if match["map_index"] is None else int(match["map_index"])
    return match["task_id"], map_index, None if match["try_number"] is None else int(match["try_number"])


def _label(key: Key) -> str:
    task_id, map_index = key
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"
