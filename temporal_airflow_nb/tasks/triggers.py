"""Runs the triggers of deferred tasks: one process of the worker runs all of them, as Airflow's triggerer does.

The process is a fork of the root zygote, started when there is a trigger to run. One thread of the worker, "triggers",
serves it with Airflow's own supervisor and writes to the database what triggers fire. Other threads and the worker's
event loop call :meth:`Triggers.start` and :meth:`Triggers.cancel`; they share the tables of :class:`Triggers` with that
thread under ``_lock``, which is never held during a transaction or a wait, and wake the thread through a socket.
:class:`TriggerSupervisor` belongs to the thread alone.

A trigger lives in memory only. When its process or the worker dies, it starts from its beginning, as in Airflow.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import structlog
from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor, messages
from airflow.models.trigger import Trigger
from airflow.sdk import log as sdk_log
from airflow.triggers.base import BaseTaskEndEvent, TriggerEvent
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from uuid6 import uuid7

from temporal_airflow_nb.tasks.database import transaction
from temporal_airflow_nb.tasks.supervisor import take_over
from temporal_airflow_nb.tasks.zygotes import Zygotes

if TYPE_CHECKING:
    from airflow.sdk.api.client import Client

log = structlog.get_logger(__name__)

# The process ends when no trigger has been waiting for this long.
_IDLE_SECONDS = 60.0
# Longest pause before another process is started, or a transaction is tried again.
_MAX_PAUSE_SECONDS = 30.0


@attrs.define(kw_only=True)
class TriggerSupervisor(TriggerRunnerSupervisor):  # type: ignore[misc]
    """Serves the triggers' process, and records with Airflow's own code what the triggers fire."""

    api: Client = attrs.field(repr=False)
    finished: set[int] = attrs.field(factory=set, init=False)
    """Triggers that have ended in the process, with or without an event."""
    fired: set[int] = attrs.field(factory=set, init=False)
    """Triggers whose event or failure is in the database, so that no task waits for them any more."""
    with_pending_callbacks: set[int] = attrs.field(factory=set, init=False)
    """Fired triggers that have ended their task, whose callbacks have still to be run."""

    def make_client(self) -> Client:
        """Return the client that answers the triggers' requests."""
        return self.api

    def create(self, trigger_ids: set[int]) -> None:
        """Have the process start triggers. A trigger without a row in the database fails the task that waits for it."""
        if not trigger_ids:
            return
        workloads = self.build_trigger_workloads(trigger_ids)
        self.creating_triggers.extend(workloads)
        for trigger_id in trigger_ids - {workload.id for workload in workloads}:
            self.on_trigger_failure(trigger_id, ["The trigger isn't in the database any more.\n"])
            self.finished.add(trigger_id)

    def cancel(self, trigger_ids: set[int]) -> None:
        """
        Have the process cancel triggers.

        Only triggers that the process has or will get are passed on: SQLite gives the id of a deleted trigger to a new
        one, which a late cancel would hit.
        """
        known = self.running_triggers | {workload.id for workload in self.creating_triggers}
        self.cancelling_triggers.update(trigger_ids & known)
        self.finished.update(trigger_ids - known)

    def serve(self, seconds: float) -> None:
        """Answer requests of the process for up to ``seconds``, then record the events and failures it has reported."""
        self._service_subprocess(seconds)
        self.handle_events()
        self.handle_failed_triggers()

    def wake_process(self) -> None:
        """Have the process fetch its changes now, if its event loop handles the signal already."""
        from temporal_airflow_nb.tasks.trigger_runner import WAKE

        # `_last_runner_comms` is infinite until the first message. Before that the process may not have installed its
        # handler, and the signal would end it.
        if self._last_runner_comms < time.monotonic():
            with suppress(ProcessLookupError):
                os.kill(self.pid, WAKE)

    def on_trigger_event(self, trigger_id: int, event: TriggerEvent) -> None:
        """Record an event, which resumes the task that waits for the trigger."""
        self._record(trigger_id, lambda session: Trigger.submit_event(trigger_id, event, session=session))
        if isinstance(event, BaseTaskEndEvent):
            self.with_pending_callbacks.add(trigger_id)

    def on_trigger_failure(self, trigger_id: int, exc: list[str] | None) -> None:
        """Record a failure, which resumes the task that waits for the trigger so that it fails."""
        self._record(trigger_id, lambda session: Trigger.submit_failure(trigger_id, exc, session=session))

    def _record(self, trigger_id: int, write: Any) -> None:
        # The process has forgotten the event when it has sent it: it would be lost if the database's failure ended
        # this. Nothing else is served meanwhile, which an unreachable database wouldn't allow anyway.
        pause = 0.5
        while True:
            try:
                with transaction() as session:
                    write(session)
                    session.flush()
                    Trigger.clean_unused(session=session)
                    if session.scalar(select(Trigger.id).where(Trigger.id == trigger_id)) is None:
                        self.fired.add(trigger_id)
                return
            except OperationalError as error:
                log.warning("Could not record a trigger's event. Trying again.", error=str(error.orig))
                time.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    def _process_log_messages_from_subprocess(self) -> Generator[None, bytes | bytearray, None]:
        # Airflow expects to be in the triggerer's own process, and configures the logging of the whole process before
        # the first line. That must not happen in the worker: the function is replaced until the generator has started.
        configure, sdk_log.configure_logging = sdk_log.configure_logging, lambda **_: None
        lines = super()._process_log_messages_from_subprocess()
        try:
            next(lines)
        finally:
            sdk_log.configure_logging = configure
        while True:
            lines.send((yield))

    def _handle_request(self, msg: Any, log: Any, req_id: int) -> None:
        if isinstance(msg, messages.TriggerStateChanges):
            self.finished.update(msg.finished or ())
        super()._handle_request(msg, log, req_id)


class Triggers:
    """
    All triggers that wait in this worker. Any thread may call its methods.

    Their process is started with the first trigger, and ends a minute after the last.

    Parameters
    ----------
    zygotes
        Starts the process.
    client
        Answers the triggers' requests.
    capacity
        Airflow's limit of triggers in the process, which Airflow's supervisor wants to know.
    """

    def __init__(self, zygotes: Zygotes, client: Client, capacity: int) -> None:
        self.zygotes = zygotes
        self.client = client
        self.capacity = capacity
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[bool]] = {}
        self._new: set[int] = set()
        self._cancelled: set[int] = set()
        self._thread: threading.Thread | None = None
        self._stopped = False
        # A byte on this pair ends the thread's wait in the supervisor's selector. It outlives every supervisor.
        self._wakeup, self._waker = socket.socketpair()
        self._wakeup.setblocking(False)

    def start(self, trigger_id: int) -> Future[bool]:
        """
        Run a trigger, or join the wait for one that runs already.

        Returns
        -------
        Future
            Done when the trigger's event is recorded, or when the trigger has ended without one. The result is whether
            callbacks of its task are left in the database.
        """
        with self._lock:
            future = self._waiting.get(trigger_id)
            if future is None:
                future = self._waiting[trigger_id] = Future()
                self._new.add(trigger_id)
                self._cancelled.discard(trigger_id)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="triggers", daemon=True)
                    self._thread.start()
        self._wake()
        return future

    def cancel(self, trigger_id: int) -> None:
        """Stop a trigger that no task waits for any more. Its ``on_kill`` runs."""
        with self._lock:
            if trigger_id in self._waiting:
                self._cancelled.add(trigger_id)
        self._wake()

    def stop(self) -> None:
        """End the process. Another worker runs the waiting triggers again when Temporal gives it their activities."""
        self._stopped = True
        self._wake()
        if (thread := self._thread) is not None:
            thread.join(5)

    def _wake(self) -> None:
        with suppress(OSError):
            self._waker.send(b"!")

    def _run(self) -> None:
        pause = 0.5
        while self._has_work():
            began = time.monotonic()
            try:
                self._serve()
            except Exception:
                log.exception("The triggers' process could not be served.")
            if self._stopped or not self._waiting:
                continue
            pause = (
                0.5 if time.monotonic() - began > _MAX_PAUSE_SECONDS else min(pause * 2, _MAX_PAUSE_SECONDS)
            )
            log.warning("The triggers' process ended. Starting another.", seconds=pause)
            time.sleep(pause)

    def _has_work(self) -> bool:
        # Decided under the lock together with the thread's end: `start` either sees the thread and leaves it a trigger,
        # or sees none and starts another.
        with self._lock:
            if self._waiting and not self._stopped:
                return True
            self._thread = None
            return False

    def _serve(self) -> None:
        child, pipes = self.zygotes.spawn("triggerer")
        supervisor: TriggerSupervisor = take_over(
            TriggerSupervisor,
            child,
            pipes,
            process_log=log,
            id=uuid7(),
            capacity=self.capacity,
            api=self.client,
        )
        supervisor.selector.register(
            self._wakeup, selectors.EVENT_READ, (lambda sock: bool(sock.recv(4096)), lambda _: None)
        )
        try:
            supervisor.send_msg(messages.StartTriggerer(), request_id=0)
            # A new process knows no trigger: all that wait are new to it.
            with self._lock:
                self._new = set(self._waiting)
            idle_since = time.monotonic()
            while supervisor.is_alive() and not self._stopped:
                self._send_changes(supervisor)
                supervisor.serve(1.0)
                self._resolve(supervisor)
                if self._waiting:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > _IDLE_SECONDS:
                    break
        finally:
            # `_wakeup` is only registered with the selector, and stays open for the next process.
            supervisor.selector.close()
            child.kill_group()
            for end in (*pipes, child):
                end.close()

    def _send_changes(self, supervisor: TriggerSupervisor) -> None:
        """Send the process the triggers to start and to cancel."""
        with self._lock:
            new, self._new = self._new, set()
            cancelled, self._cancelled = self._cancelled, set()
        supervisor.create(new - cancelled)
        supervisor.cancel(cancelled)
        if new or cancelled:
            supervisor.wake_process()

    def _resolve(self, supervisor: TriggerSupervisor) -> None:
        """Complete the futures of triggers that have fired or ended."""
        ended = supervisor.finished | supervisor.fired
        with self._lock:
            released = {
                trigger_id: future
                for trigger_id in ended
                if (future := self._waiting.pop(trigger_id, None)) is not None
            }
        # A trigger that goes on after its event is cancelled, as Airflow's triggerer does: its row is deleted.
        supervisor.cancel(supervisor.fired & supervisor.running_triggers)
        # Outside the lock: callbacks of a future run in this thread.
        for trigger_id, future in released.items():
            future.set_result(trigger_id in supervisor.with_pending_callbacks)
        for known in (supervisor.finished, supervisor.fired, supervisor.with_pending_callbacks):
            known -= ended
