"""Watches the deadlines of runs, where no scheduler or no triggerer of Airflow does."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from airflow._shared.timezones import timezone
from airflow.executors.workloads import ExecuteCallback

from temporal_airflow_nb.tasks.attempt import TaskRunner
from temporal_airflow_nb.tasks.deadlines import (
    claim_callbacks,
    list_callback_triggers,
    queue_missed_deadlines,
    run_callback,
)
from temporal_airflow_nb.tasks.triggers import Triggers

log = structlog.get_logger(__name__)

_LOOK_AGAIN = 30.0
_LOOK_AGAIN_BESIDE_A_SCHEDULER = 2.0


class DeadlineWatch:
    """
    Waits for the next deadline in the database, and has the callbacks of those that pass run.

    Nothing is kept in memory: a worker that restarts finds the deadlines that passed meanwhile, and runs again what
    was still running.

    Parameters
    ----------
    runner
        Has the processes that callbacks run in.
    triggers
        Runs asynchronous callbacks.
    alone
        Whether no scheduler of Airflow sees to the deadlines, and its executor to the callbacks that need a process.
    """

    def __init__(self, runner: TaskRunner, triggers: Triggers, *, alone: bool) -> None:
        self.runner = runner
        self.triggers = triggers
        self.alone = alone
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Say, from any thread, that there may be a new deadline."""
        self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            pause = _LOOK_AGAIN if self.alone else _LOOK_AGAIN_BESIDE_A_SCHEDULER
            try:
                if self.alone:
                    following = await asyncio.to_thread(queue_missed_deadlines)
                    if following is not None:
                        pause = min(pause, (following - timezone.utcnow()).total_seconds() + 0.01)
                await self._run_callbacks()
            except Exception as error:
                log.warning("Could not look after deadlines; trying again", error=repr(error))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, pause))
            self._wake.clear()

    async def _run_callbacks(self) -> None:
        for trigger_id in await asyncio.to_thread(list_callback_triggers):
            self.triggers.start(trigger_id)
        if not self.alone:
            return
        for workload in await asyncio.to_thread(claim_callbacks):
            task = asyncio.create_task(self._run_callback(workload))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run_callback(self, workload: ExecuteCallback) -> None:
        try:
            await asyncio.to_thread(run_callback, workload, self.runner.zygotes, self.runner.client)
        except Exception:
            log.exception("A deadline's callback could not be run", callback=workload.display_name)
