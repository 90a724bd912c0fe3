"""Watch the deadlines of runs, for an Airflow without a scheduler or without a triggerer.

The loop runs on the worker's event loop; queries, and the supervision of callback processes, run in threads.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from airflow._shared.timezones import timezone
from airflow.executors.workloads import ExecuteCallback
from sqlalchemy.exc import SQLAlchemyError

from temporal_airflow_nb.tasks.attempt import TaskRunner
from temporal_airflow_nb.tasks.deadlines import (
    claim_callbacks,
    list_callback_triggers,
    queue_missed_deadlines,
    run_callback,
)
from temporal_airflow_nb.tasks.triggers import Triggers

log = structlog.get_logger(__name__)

_CHECK_SECONDS = 30.0
# Airflow's scheduler creates the triggers of callbacks in its own process, from which no `wake` comes.
_CHECK_SECONDS_WITH_SCHEDULER = 2.0


class DeadlineWatcher:
    """
    The loop that waits for the next deadline, and runs the callbacks of deadlines that have passed.

    All state is in the database: a worker that restarts finds the deadlines that passed meanwhile, and runs the
    callbacks again that were still running.

    Parameters
    ----------
    runner
        Provides the processes that callbacks run in.
    triggers
        Runs asynchronous callbacks.
    has_scheduler
        Whether Airflow's scheduler checks the deadlines, and its executor runs the callbacks that need a process.
    """

    def __init__(self, runner: TaskRunner, triggers: Triggers, *, has_scheduler: bool) -> None:
        self.runner = runner
        self.triggers = triggers
        self.has_scheduler = has_scheduler
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Check the deadlines soon; may be called from any thread."""
        self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            pause = _CHECK_SECONDS_WITH_SCHEDULER if self.has_scheduler else _CHECK_SECONDS
            try:
                if not self.has_scheduler:
                    next_deadline = await asyncio.to_thread(queue_missed_deadlines)
                    if next_deadline is not None:
                        pause = min(pause, (next_deadline - timezone.utcnow()).total_seconds() + 0.01)
                await self._run_callbacks()
            except Exception as error:
                # Nothing restarts this loop.
                log.warning(
                    "Could not check the deadlines; trying again",
                    error=repr(error),
                    exc_info=not isinstance(error, SQLAlchemyError),
                )
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, pause))
            self._wake.clear()

    async def _run_callbacks(self) -> None:
        # `start` has no effect on a trigger that runs. Nothing waits for its future: Airflow's code stores the outcome.
        for trigger_id in await asyncio.to_thread(list_callback_triggers):
            self.triggers.start(trigger_id)
        if self.has_scheduler:
            return
        for workload in await asyncio.to_thread(claim_callbacks):
            task = asyncio.create_task(self._run_callback(workload))
            # The event loop keeps no strong reference to a task: without this one it could be collected.
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run_callback(self, workload: ExecuteCallback) -> None:
        try:
            await asyncio.to_thread(run_callback, workload, self.runner.zygotes, self.runner.client)
        except Exception:
            # Nothing awaits this task: its error would only be reported when the task is collected.
            log.exception("Could not run the callback of a deadline", callback=workload.display_name)
