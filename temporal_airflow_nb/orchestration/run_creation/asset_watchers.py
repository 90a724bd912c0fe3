"""Run the triggers that watch assets, for an Airflow without a triggerer.

The loop runs on the worker's event loop, which alone reads and writes its fields; queries run in threads. The triggers
run in the process that ``Triggers`` starts.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import structlog
from airflow.models.asset import AssetWatcherModel
from sqlalchemy import event, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import object_session

from temporal_airflow_nb.tasks.database import after_commit, reading
from temporal_airflow_nb.tasks.triggers import Triggers

log = structlog.get_logger(__name__)

_CHECK_SECONDS = 30.0
_MIN_PAUSE_SECONDS = 1.0


class AssetWatcherRunner:
    """
    The loop that runs the trigger of each asset watcher, and restarts it when it ends.

    Parameters
    ----------
    triggers
        Runs the triggers.
    """

    def __init__(self, triggers: Triggers) -> None:
        self.triggers = triggers
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._running: dict[int, Future[bool]] = {}

    def wake(self, _: Any = None) -> None:
        """Check the watchers soon; may be called from any thread."""
        self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Watch until cancelled."""
        for change in ("after_insert", "after_delete"):
            event.listen(AssetWatcherModel, change, self._wake_after_commit)
        while True:
            try:
                self._start_and_cancel(await asyncio.to_thread(_triggers_of_assets))
            except Exception as error:
                # Nothing restarts this loop.
                log.warning(
                    "Could not start or cancel asset watchers; trying again",
                    error=repr(error),
                    exc_info=not isinstance(error, SQLAlchemyError),
                )
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _CHECK_SECONDS)
            self._wake.clear()
            # A trigger that ends at once wakes this loop at once, and would keep the machine busy.
            await asyncio.sleep(_MIN_PAUSE_SECONDS)

    def _wake_after_commit(self, _: Any, __: Any, watcher: AssetWatcherModel) -> None:
        if (session := object_session(watcher)) is not None:
            after_commit(session, self.wake)

    def _start_and_cancel(self, wanted: set[int]) -> None:
        # A cancelled trigger stays in `_running` until its `on_kill` has ended: if it is wanted again, it starts then.
        for trigger_id in self._running.keys() - wanted:
            self.triggers.cancel(trigger_id)
        self._running = {
            trigger_id: future for trigger_id, future in self._running.items() if not future.done()
        }
        for trigger_id in wanted - self._running.keys():
            future = self._running[trigger_id] = self.triggers.start(trigger_id)
            # Called in the thread of `Triggers`.
            future.add_done_callback(self.wake)


def _triggers_of_assets() -> set[int]:
    with reading() as session:
        return set(session.scalars(select(AssetWatcherModel.trigger_id)))
