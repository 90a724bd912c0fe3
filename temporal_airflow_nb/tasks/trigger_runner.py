"""The process in which triggers run: Airflow's own runner, which hears at once of what there is to do."""

from __future__ import annotations

import asyncio
import signal
from types import SimpleNamespace
from typing import Any

import anyio
from airflow.jobs import triggerer_job_runner
from airflow.jobs.triggerer_job_runner import TriggerRunner

WAKE = signal.SIGUSR1


class _Wakeup:
    """An event that is over as soon as it has been noticed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event.clear()


class PromptTriggerRunner(TriggerRunner):
    """
    Airflow's runner looks once a second for new triggers and for those that have fired.

    This one looks when a trigger ends, and when the supervisor sends :data:`WAKE`. The second stays for triggers that
    fire more than once.
    """

    async def arun(self) -> None:
        """Run triggers until told to stop."""
        asyncio.get_running_loop().add_signal_handler(WAKE, self._wake)
        triggerer_job_runner.anyio = SimpleNamespace(  # type: ignore[attr-defined]
            Event=_Wakeup, move_on_after=anyio.move_on_after
        )
        await super().arun()

    async def run_trigger(self, *args: Any, **kwargs: Any) -> None:
        """Run one trigger."""
        try:
            await super().run_trigger(*args, **kwargs)
        finally:
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        if self._stop_event is not None:
            self._stop_event.set()
