"""The activities that run user code: one try of a task, and callbacks outside tasks.

The activities are coroutines on the worker's event loop; a thread of ``TaskActivities.executor`` supervises each task
process. The event loop alone reads and writes ``TaskActivities._running`` and the counts of waiting activities, so that
they need no lock. The event loop stops a try by setting a flag, then sending a byte through a socket pair, which wakes
the supervising thread. A thread can't be interrupted otherwise: an activity that has to stop waits until its thread has
ended the process.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from temporal_airflow_nb.orchestration.workflow.models import WORKER_LOST, RunRef, RunTask
from temporal_airflow_nb.tasks.attempt import Interruption, StoppedError, TaskKey, TaskRunner
from temporal_airflow_nb.tasks.zygotes import ZygoteLostError

HEARTBEAT_SECONDS = 2.0
_ORPHAN_SECONDS = 60.0
"""Seconds for which a try continues after Temporal has given up its activity; then it is stopped."""


def worker_lost(message: str) -> ApplicationError:
    """Return the error after which Temporal may attempt the activity again."""
    return ApplicationError(message, type=WORKER_LOST, category=ApplicationErrorCategory.BENIGN)


class _RunningTry:
    """A try that a thread supervises; it outlives its activity if Temporal gives the activity up."""

    def __init__(
        self,
        runner: TaskRunner,
        key: TaskKey,
        executor: ThreadPoolExecutor,
        *,
        interruption: Interruption | None,
        plain: bool,
    ) -> None:
        self.stopping = False
        self.waiters = 0
        self._wakeup, self._waker = socket.socketpair()
        self.future = asyncio.get_running_loop().run_in_executor(
            executor,
            lambda: runner.run(
                key,
                wakeup=self._wakeup,
                should_stop=lambda: self.stopping,
                interruption=interruption,
                own_interpreter=plain,
            ),
        )
        # Called on the event loop, as `stop` is: the sockets can't be closed while `stop` uses them.
        self.future.add_done_callback(self._close)

    def stop(self) -> None:
        self.stopping = True
        # The supervisor's thread waits in a selector that includes the other end of this socket.
        with suppress(OSError):
            self._waker.send(b"!")

    def _close(self, _: object) -> None:
        self._wakeup.close()
        self._waker.close()


class TaskActivities:
    """
    The worker's activities for user code.

    Parameters
    ----------
    runner
        Runs a try in the thread that calls it.
    max_tasks
        How many tries this worker supervises at a time.
    """

    def __init__(self, runner: TaskRunner, max_tasks: int) -> None:
        self.runner = runner
        # The Temporal workers of all queues share it. Together they may accept more tries than it has threads: a try
        # then waits here, while its activity sends heartbeats.
        self.executor = ThreadPoolExecutor(max_tasks + 4, thread_name_prefix="task")
        self._running: dict[TaskKey, _RunningTry] = {}

    @activity.defn
    async def run_airflow_task(self, request: RunTask) -> None:
        """
        Run one try of one task; when it returns, the outcome is in the database.

        All attempts of Temporal at this activity are the same Airflow try: a further attempt means that the worker was
        lost. If this worker still runs the try, because it lost only the connection to Temporal, the new attempt waits
        for the running try.
        """
        task = request.task
        key = TaskKey(request.dag_id, request.run_id, task.task_id, task.map_index, task.try_number)
        running = self._running.get(key)
        if running is None:
            attempt = activity.info().attempt
            interruption = Interruption(attempt - 1, request.max_reruns) if attempt > 1 else None
            running = self._running[key] = _RunningTry(
                self.runner, key, self.executor, interruption=interruption, plain=task.plain
            )
            running.future.add_done_callback(lambda _: self._forget(key, running))
        # No `await` before this line: otherwise `_stop_orphan` could stop the try that this attempt is about to join.
        running.waiters += 1
        try:
            await self._wait(running)
        finally:
            running.waiters -= 1

    async def _wait(self, running: _RunningTry) -> None:
        try:
            await _end_of(running.future)
            running.future.result()
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            # Temporal no longer has this attempt: it timed out, for example while the connection was lost. The try
            # goes on, so that the next attempt can join it if it reaches this worker within `_ORPHAN_SECONDS`.
            if (
                details is not None
                and (details.timed_out or details.not_found)
                and not details.cancel_requested
            ):
                asyncio.get_running_loop().call_later(_ORPHAN_SECONDS, self._stop_orphan, running)
                raise
            # The slot of this activity is free only when the process has ended.
            running.stop()
            await _end_of(running.future)
            if details is not None and details.worker_shutdown:
                raise worker_lost("The worker was shut down.") from None
            with suppress(StoppedError, ZygoteLostError):
                running.future.result()
            raise
        except StoppedError:
            raise worker_lost("The try was stopped.") from None
        except ZygoteLostError as error:
            raise worker_lost(str(error)) from None

    def _stop_orphan(self, running: _RunningTry) -> None:
        # Another attempt may have joined the try since.
        if running.waiters == 0:
            running.stop()

    def _forget(self, key: TaskKey, running: _RunningTry) -> None:
        # Done callbacks run in a later step of the event loop: a new try with the same key may have replaced it.
        if self._running.get(key) is running:
            del self._running[key]

    @activity.defn
    async def run_callbacks(self, ref: RunRef) -> int:
        """Run the callbacks that wait for a run in the database; return how many there were."""
        future = asyncio.get_running_loop().run_in_executor(
            self.executor, self.runner.callbacks.run_pending, ref.dag_id, ref.run_id
        )
        await _end_of(future)
        return future.result()


async def _end_of(future: asyncio.Future[Any]) -> None:
    """Send heartbeats until ``future`` is done."""
    # `asyncio.wait` rather than `wait_for`: a cancelled activity must not cancel the future of the thread, which would
    # go on unseen. The start of the activity counts as the first heartbeat: most tries end before a second is due.
    while not (await asyncio.wait([future], timeout=HEARTBEAT_SECONDS))[0]:
        activity.heartbeat()
