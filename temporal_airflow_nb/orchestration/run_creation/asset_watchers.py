"""Keeps the triggers running that watch for changes of assets, where no triggerer of Airflow does."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import structlog
from airflow.models.asset import AssetWatcherModel
from sqlalchemy import event, select
from sqlalchemy.orm import object_session

from temporal_airflow_nb.tasks.database import after_commit, reading
from temporal_airflow_nb.tasks.triggers import Triggers

log = structlog.get_logger(__name__)

_LOOK_AGAIN = 30.0
_PAUSE = 1.0


class AssetWatchers:
    """
    Runs each watcher's trigger, and runs it again when it has ended: a change is watched for as long as a DAG says so.

    Parameters
    ----------
    triggers
        Runs them.
    """

    def __init__(self, triggers: Triggers) -> None:
        self.triggers = triggers
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._running: dict[int, Future[bool]] = {}

    def wake(self, _: Any = None) -> None:
        """Say, from any thread, that a watcher has come or gone, or that its trigger has ended."""
        self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Watch until cancelled."""
        for change in ("after_insert", "after_delete"):
            event.listen(AssetWatcherModel, change, self._tell)
        while True:
            try:
                self._follow(await asyncio.to_thread(_triggers_of_assets))
            except Exception as error:
                log.warning("Could not look after the watchers of assets; trying again", error=repr(error))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK_AGAIN)
            self._wake.clear()
            # One that ends at once would keep the machine busy.
            await asyncio.sleep(_PAUSE)

    def _tell(self, _: Any, __: Any, watcher: AssetWatcherModel) -> None:
        if (session := object_session(watcher)) is not None:
            after_commit(session, self.wake)

    def _follow(self, wanted: set[int]) -> None:
        for trigger_id in self._running.keys() - wanted:
            self.triggers.cancel(trigger_id)
        self._running = {
            trigger_id: future for trigger_id, future in self._running.items() if not future.done()
        }
        for trigger_id in wanted - self._running.keys():
            future = self._running[trigger_id] = self.triggers.start(trigger_id)
            future.add_done_callback(self.wake)


def _triggers_of_assets() -> set[int]:
    with reading() as session:
        return set(session.scalars(select(AssetWatcherModel.trigger_id)))
