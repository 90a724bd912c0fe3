"""Airflow's trigger runner for the triggers' process, without its wait of up to a second.

The process is a fork of the root zygote. Its supervisor is in a thread of the worker (``triggers.py``). Everything here
runs in the process's event loop.
"""

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
    """An event that clears itself when its waiter continues."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event.clear()


class PromptTriggerRunner(TriggerRunner):  # type: ignore[misc]
    """
    Runs triggers as Airflow's runner does, and exchanges news with its supervisor at once.

    Airflow's runner does so once a second. This one also does it when a trigger ends, and when the supervisor sends
    :data:`WAKE`. The second stays for triggers that fire more than once.
    """

    async def arun(self) -> None:
        """Run triggers until the runner is stopped."""
        asyncio.get_running_loop().add_signal_handler(WAKE, self._wake)
        # Airflow's `arun` sleeps with `move_on_after(1)` and an `Event` that is set only to stop, and then reads
        # `self.stop`. Its module's `anyio` is replaced, so that setting the event ends one sleep and no more. These two
        # names are the only ones that the module uses.
        triggerer_job_runner.anyio = SimpleNamespace(Event=_Wakeup, move_on_after=anyio.move_on_after)
        await super().arun()

    async def run_trigger(self, *args: Any, **kwargs: Any) -> None:
        """Run one trigger."""
        try:
            await super().run_trigger(*args, **kwargs)
        finally:
            # Not at once: Airflow sees the trigger's asyncio task as done only after this coroutine has returned.
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        if self._stop_event is not None:
            self._stop_event.set()
