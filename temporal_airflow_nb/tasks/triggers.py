"""The triggers of deferred tasks: one process of the worker runs all of them, as Airflow's triggerer does."""

from __future__ import annotations

import os
import selectors
import signal
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

_IDLE_SECONDS = 60.0
_MAX_PAUSE_SECONDS = 30.0


@attrs.define(kw_only=True)
class TriggerSupervisor(TriggerRunnerSupervisor):
    """Serves the triggers' process; what they fire is recorded by Airflow's own code."""

    api: Client = attrs.field(repr=False)
    finished: set[int] = attrs.field(factory=set, init=False)
    """Triggers that have ended, however they did."""
    fired: set[int] = attrs.field(factory=set, init=False)
    """Triggers whose event, or failure, is in the database, so that nothing waits for them any more."""
    with_pending_callbacks: set[int] = attrs.field(factory=set, init=False)
    """Those of them that ended their task without a worker, so that its callbacks are still to be run."""

    def make_client(self) -> Client:
        """Return what answers the triggers' requests."""
        return self.api

    def create(self, trigger_ids: set[int]) -> None:
        """Have triggers started; what can't be started fails the task that waits for it."""
        if not trigger_ids:
            return
        workloads = self.build_trigger_workloads(trigger_ids)
        self.creating_triggers.extend(workloads)
        for trigger_id in trigger_ids - {workload.id for workload in workloads}:
            self.on_trigger_failure(trigger_id, ["The trigger isn't in the database any more\n"])
            self.finished.add(trigger_id)

    def cancel(self, trigger_ids: set[int]) -> None:
        """
        Have triggers cancelled.

        One that the process doesn't know must not be among them: SQLite gives its id to another trigger.
        """
        known = self.running_triggers | {workload.id for workload in self.creating_triggers}
        self.cancelling_triggers.update(trigger_ids & known)
        self.finished.update(trigger_ids - known)

    def serve(self, seconds: float) -> None:
        """Answer the process for up to ``seconds``, and record what has fired."""
        self._service_subprocess(seconds)
        self.handle_events()
        self.handle_failed_triggers()

    def wake_process(self) -> None:
        """Have the process ask for news, if it has begun to listen."""
        from temporal_airflow_nb.tasks.trigger_runner import WAKE

        if self._last_runner_comms < time.monotonic():
            with suppress(ProcessLookupError):
                os.kill(self.pid, WAKE)

    def on_trigger_event(self, trigger_id: int, event: TriggerEvent) -> None:
        """Resume what waits for the trigger."""
        self._record(trigger_id, lambda session: Trigger.submit_event(trigger_id, event, session=session))
        if isinstance(event, BaseTaskEndEvent):
            self.with_pending_callbacks.add(trigger_id)

    def on_trigger_failure(self, trigger_id: int, exc: list[str] | None) -> None:
        """Resume what waits for the trigger so that it fails."""
        self._record(trigger_id, lambda session: Trigger.submit_failure(trigger_id, exc, session=session))

    def _record(self, trigger_id: int, write: Any) -> None:
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
                log.warning("Could not record what a trigger fired; trying again", error=str(error.orig))
                time.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    def _process_log_messages_from_subprocess(self) -> Generator[None, bytes | bytearray, None]:
        # Airflow takes this for a process of the triggerer's own, and begins with configuring its logging.
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
    All triggers that wait in this worker; safe in threads.

    Their process is started when there is one to run, and ends a minute after the last.

    Parameters
    ----------
    zygotes
        Where the process comes from.
    client
        Answers what triggers ask for.
    capacity
        How many triggers may run at a time; only told to Airflow.
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
        self._wakeup, self._waker = socket.socketpair()
        self._wakeup.setblocking(False)

    def start(self, trigger_id: int) -> Future[bool]:
        """
        Run a trigger, or join the wait for one that runs already.

        Returns
        -------
        Future
            Done when what the trigger fired is recorded, or when it ended without firing. Its result is whether
            that left callbacks of its task in the database.
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
        """Stop a trigger that nobody waits for any more; its ``on_kill`` runs."""
        with self._lock:
            if trigger_id in self._waiting:
                self._cancelled.add(trigger_id)
        self._wake()

    def stop(self) -> None:
        """End the process; triggers that wait are run again by whoever asks for them next."""
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
                log.exception("The triggers' process could not be served")
            if self._stopped or not self._waiting:
                continue
            pause = (
                0.5 if time.monotonic() - began > _MAX_PAUSE_SECONDS else min(pause * 2, _MAX_PAUSE_SECONDS)
            )
            log.warning("The triggers' process ended; starting another", seconds=pause)
            time.sleep(pause)

    def _has_work(self) -> bool:
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
            supervisor.selector.close()
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            for end in (*pipes, child.exit_channel):
                end.close()

    def _send_changes(self, supervisor: TriggerSupervisor) -> None:
        """Tell the process which triggers to start and to cancel."""
        with self._lock:
            new, self._new = self._new, set()
            cancelled, self._cancelled = self._cancelled, set()
        supervisor.create(new - cancelled)
        supervisor.cancel(cancelled)
        if new or cancelled:
            supervisor.wake_process()

    def _resolve(self, supervisor: TriggerSupervisor) -> None:
        """Release those who wait for a trigger that has fired, or that is gone."""
        ended = supervisor.finished | supervisor.fired
        with self._lock:
            released = {
                trigger_id: future
                for trigger_id in ended
                if (future := self._waiting.pop(trigger_id, None)) is not None
            }
        # One that has fired and goes on all the same isn't wanted any more, as Airflow's triggerer sees it.
        supervisor.cancel(supervisor.fired & supervisor.running_triggers)
        for trigger_id, future in released.items():
            future.set_result(trigger_id in supervisor.with_pending_callbacks)
        for known in (supervisor.finished, supervisor.fired, supervisor.with_pending_callbacks):
            known -= ended
