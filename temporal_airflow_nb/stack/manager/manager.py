"""The stack manager, a process that starts, restarts and ends a stack's services.

Run as ``python -m temporal_airflow_nb.stack.manager.manager HOME``; ``control.py`` starts it. It has one thread, which
waits in a selector for signals, for the owner's pipe and for timers, and does everything else between two waits. It has
to stay single-threaded: it forks the watchdog, and its services' death signal is tied to the thread that starts them.
It imports neither Airflow nor Temporal, so that it starts fast and stays small.

It has the lock ``keeper.lock`` from its start to its end, and alone writes ``stack.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from temporal_airflow_nb._version import __version__
from temporal_airflow_nb.config import environment
from temporal_airflow_nb.errors import ServiceUnavailableError, TemporalAirflowError
from temporal_airflow_nb.stack import processes, state_folder
from temporal_airflow_nb.stack.manager import control, watchdog
from temporal_airflow_nb.stack.manager.service_process import ServiceProcess
from temporal_airflow_nb.stack.services import airflow_services, database, definitions, ports
from temporal_airflow_nb.stack.services.spec import Plan, port_names
from temporal_airflow_nb.stack.state_folder import StackRecord

START_TIMEOUT = 240.0
# Seconds between two checks of services that aren't ready, and of the shares of a stack that lingers.
_TICK_SECONDS = 0.05
_SHARE_CHECK_SECONDS = 0.5


class _PortTakenError(Exception):
    """Another program took a service's port between its choice and the service's start."""


class _StopError(Exception):
    """The stack has to end: raised by the callbacks of the selector."""


class StackManager:
    """Runs one stack from start to end.

    Parameters
    ----------
    home
        The state folder, prepared.
    owner_fd
        Read end of a pipe whose write end the owner has; None for a detached stack. An end of file ends the stack, or
        lets it linger; a byte detaches it.
    ready_fd
        Write end of a pipe on which the manager reports once, in JSON, that the stack is ready or why it can't start.
    embedded
        Whether the stack runs its own Temporal server and Airflow, or only a gateway to configured ones.
    ui
        Whether Airflow's own processes run too.
    db
        Kind of the metadata database.
    linger
        Seconds for which the stack waits for another owner when its own has died; 0 to end at once.
    worker_command
        Command of the worker service, instead of the package's own.
    """

    def __init__(
        self,
        home: Path,
        *,
        owner_fd: int | None = None,
        ready_fd: int | None = None,
        embedded: bool = True,
        ui: bool = False,
        db: str = database.SQLITE,
        linger: float = 0.0,
        worker_command: list[str] | None = None,
    ) -> None:
        self.home = home
        self.stack_id = os.environ.setdefault(processes.STACK_ID_VARIABLE, uuid.uuid4().hex)
        self._owner_fd = owner_fd
        self._ready_fd = ready_fd
        self._embedded = embedded
        self._ui = ui
        self._database = db
        self._linger = linger
        self._detached = owner_fd is None
        self._end_at: float | None = None
        self._worker_command = worker_command
        self._selector = selectors.DefaultSelector()
        self._watchdog = 0
        self._plan: Plan | None = None
        self._running: list[ServiceProcess] = []
        self._state = "starting"
        self._reload_folders = False

    def run(self) -> int:
        """Run the stack until a signal or the end of its owner; return the exit code."""
        try:
            # With a timeout: another process that calls `manager_is_running` has this lock for a moment.
            with state_folder.acquire_lock(
                self.home / state_folder.MANAGER_LOCK, timeout=5, waiting_for="Another stack manager"
            ) as lock:
                # Before the first service: from then on, no service is left running if this process is killed.
                self._watchdog = watchdog.start(
                    self.stack_id,
                    close=[fd for fd in (lock, self._owner_fd, self._ready_fd) if fd is not None],
                )
                self._watch_signals()
                try:
                    self._start()
                    self._supervise()
                except _StopError:
                    return 0
                finally:
                    # Before the lock is released: the next manager must find no process of this stack.
                    self._end()
        except TemporalAirflowError as error:
            print(f"{_timestamp()} {error}", flush=True)
            self._report_start({"error": error.to_dict()})
            return error.exit_code
        raise AssertionError("unreachable")

    def _watch_signals(self) -> None:
        # Python's signal handler only writes the signals' numbers to this pipe, and the selector reads it: a signal
        # never interrupts the work between two waits, such as the write of `stack.json`. SIGCHLD ends the wait.
        wakeup, wakeup_end = os.pipe()
        for fd in (wakeup, wakeup_end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
        stop = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        # The handlers do nothing. Without one, a signal has its default effect and its number isn't written.
        for number in (*stop, control.RELOAD_SIGNAL, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

        def on_signal() -> None:
            received = set(os.read(wakeup, 4096))
            if stop & received:
                raise _StopError
            self._reload_folders = self._reload_folders or control.RELOAD_SIGNAL in received

        self._selector.register(wakeup, selectors.EVENT_READ, on_signal)
        if self._owner_fd is not None:
            self._selector.register(self._owner_fd, selectors.EVENT_READ, self._on_owner)

    def _on_owner(self) -> None:
        assert self._owner_fd is not None
        # A byte comes from `StackOwnership.detach_stack`; the end of file when the owner has closed the pipe or died.
        if os.read(self._owner_fd, 1):
            self._detached = True
        elif self._linger:
            self._end_at = time.monotonic() + self._linger
        else:
            raise _StopError
        self._selector.unregister(self._owner_fd)
        os.close(self._owner_fd)
        self._owner_fd = None
        self._record()

    def _check_shares(self) -> None:
        """End the stack if no process has had a share in it for ``linger`` seconds.

        This process keeps the lock until it has ended, so that no process can take a share in a stack that is about to
        end.
        """
        lock = state_folder.try_lock_owners(self.home, exclusive=True)
        if lock is None:
            self._end_at = time.monotonic() + self._linger
        elif self._end_at is not None and time.monotonic() >= self._end_at:
            raise _StopError
        else:
            os.close(lock)

    def _wait(self, seconds: float | None) -> None:
        for key, _ in self._selector.select(seconds):
            callback: Callable[[], None] = key.data
            callback()

    def _start(self) -> None:
        # This manager has the lock, so that the manager that wrote the record is gone. Processes that it has left
        # running would use the same databases.
        before = state_folder.read_stack(self.home)
        if before.get("id") not in (None, self.stack_id):
            processes.kill_all(before["id"])
        asked = ports.requested() if self._embedded else {}
        taken: set[int] = set()
        for attempt in range(3):
            plan = self._plan = self._make_plan(before, asked, taken)
            try:
                self._start_services(plan)
                break
            except _PortTakenError:
                # A port is free only at the moment of the check. Ports that the user asked for are tried again.
                self._end_services()
                taken |= set(plan.ports.values()) - set(asked.values())
                if attempt == 2:
                    raise ServiceUnavailableError(
                        "Other programs took the stack's ports three times while it started.",
                        hint=f"See the logs in {self.home / state_folder.LOGS}.",
                    ) from None
        self._state = "ready"
        self._record()
        self._report_start({"ready": True})

    def _make_plan(self, before: StackRecord, asked: dict[str, int], taken: set[int]) -> Plan:
        names = port_names(embedded=self._embedded, ui=self._ui, database=self._database)
        chosen = ports.choose(names, asked=asked, recorded=before.get("ports"), avoid=taken)
        namespace = (
            os.environ.get("TEMPORAL_NAMESPACE") or before.get("temporal", {}).get("namespace") or "default"
        )
        return Plan(
            home=self.home,
            stack_id=self.stack_id,
            ports=chosen,
            # The token of the stack's earlier start: clients that a notebook made before still work.
            token=before.get("gateway", {}).get("token") or uuid.uuid4().hex + uuid.uuid4().hex,
            namespace=namespace,
            task_queue=environment.task_queue(),
            ui=self._ui,
            database=self._database,
        )

    def _start_services(self, plan: Plan) -> None:
        if self._embedded:
            definitions.prepare(plan)
            specs = definitions.embedded_services(plan, self._worker_command)
        else:
            specs = definitions.gateway_services(plan, self._worker_command)
        self._running = [ServiceProcess(service) for service in specs]
        # The worker reads the gateway's token there: in its environment, the tasks that it forks would have it as well.
        self._record()
        for process in self._running:
            process.start()
        self._record()
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            changed = [s for s in self._running if s.check()]
            if changed:
                self._record()
            for process in self._running:
                if process.state == "dead":
                    self._raise_start_error(process)
            if all(s.state == "running" for s in self._running):
                return
            if time.monotonic() > deadline:
                late = [s.service.name for s in self._running if s.state != "running"]
                raise ServiceUnavailableError(
                    f"Not ready after {START_TIMEOUT:.0f} s: {', '.join(late)}.",
                    hint=f"See the logs in {self.home / state_folder.LOGS}.",
                    service=late[0],
                )
            self._wait(_TICK_SECONDS)

    def _raise_start_error(self, process: ServiceProcess) -> None:
        service = process.service
        process.end()
        if not all(ports.is_free(port) for port in service.ports):
            raise _PortTakenError
        assert process.error is not None
        raise process.error

    def _supervise(self) -> None:
        while True:
            now = time.monotonic()
            if self._reload_folders:
                self._restart_dag_processor()
            if self._end_at is not None:
                self._check_shares()
            for process in self._running:
                if process.retry_at is not None and now >= process.retry_at:
                    process.start()
                    self._record()
                if process.check():
                    if process.state == "dead":
                        self._handle_exit(process)
                    self._record()
            waits = [max(0.0, s.retry_at - time.monotonic()) for s in self._running if s.retry_at is not None]
            if any(s.state == "starting" for s in self._running):
                waits.append(_TICK_SECONDS)
            if self._end_at is not None:
                waits.append(_SHARE_CHECK_SECONDS)
            self._wait(min(waits, default=None))

    def _restart_dag_processor(self) -> None:
        """Restart Airflow's DAG processor, which reads the list of watched folders at its start.

        The manager waits for its end, at most ``grace`` seconds, and does nothing else meanwhile.
        """
        # Before the list is read: a signal that arrives later leads to another restart.
        self._reload_folders = False
        for process in self._running:
            if process.service.name == airflow_services.DAG_PROCESSOR:
                command = airflow_services.dag_processor_command(self.home)
                process.end()
                process.service = replace(process.service, command=command)
                process.start()
                self._record()

    def _handle_exit(self, process: ServiceProcess) -> None:
        # Standard output is the manager's log.
        print(f"{_timestamp()} {process.error}", flush=True)
        process.schedule_restart()
        # Descendants of the dead process may have left its group. They are found by the stack's id. The other services,
        # this process and the watchdog have that id too, so that their groups are excepted.
        if process.service.has_offspring:
            others = [processes.process_groups(s.process.pid) for s in self._running if s.process is not None]
            processes.kill_all(self.stack_id, spare={os.getpgid(0), self._watchdog}.union(*others))

    def _end_services(self) -> None:
        # All that depend on others are signalled first and end side by side; then each is waited for, in the reverse
        # order of the start, so that the database and Temporal's server end last.
        for process in self._running:
            if not process.service.serves_others:
                process.ask_to_end()
        for process in reversed(self._running):
            process.end()
        processes.kill_all(self.stack_id, spare={os.getpgid(0), self._watchdog})

    def _end(self) -> None:
        # Recorded first: a process that wants to attach waits until this manager is gone, then starts the stack again.
        self._state = "stopping"
        self._record()
        self._end_services()
        self._state = "stopped"
        if self._embedded:
            self._record()
        else:
            # A temporary folder of one connection, which nothing reads any more.
            shutil.rmtree(self.home, ignore_errors=True)
        # Last, because this also kills the watchdog.
        processes.kill_all(self.stack_id)

    def _record(self) -> None:
        # Without a plan, the record of the stack's earlier start stays: the next start takes ports and token from it.
        if self._plan is None:
            return
        state_folder.write_stack(
            self.home,
            {
                "id": self.stack_id,
                "version": __version__,
                "state": self._state,
                state_folder.MANAGER: processes.identify(os.getpid()) if self._state != "stopped" else None,
                "detached": self._detached,
                "lingers": bool(self._linger) and not self._detached,
                "services": [process.row() for process in self._running],
                "gateway": self._plan.gateway,
                "temporal": self._plan.temporal,
                "airflow": self._plan.airflow,
                "ports": dict(self._plan.ports),
            },
        )

    def _report_start(self, message: Mapping[str, object]) -> None:
        if self._ready_fd is None:
            return
        # Fails if the process that waits for the report has died, which the owner's pipe reports as well.
        with contextlib.suppress(OSError):
            os.write(self._ready_fd, json.dumps(message).encode() + b"\n")
        os.close(self._ready_fd)
        self._ready_fd = None


def _timestamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def parse_arguments(arguments: list[str]) -> dict[str, Any]:
    """Return the arguments of :class:`StackManager` from its command line."""
    parser = argparse.ArgumentParser(prog="stack manager")
    parser.add_argument("home", type=Path)
    parser.add_argument("--owner-fd", type=int)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--gateway-only", dest="embedded", action="store_false")
    parser.add_argument("--ui", action="store_true")
    parser.add_argument("--linger", type=float, default=0.0)
    parser.add_argument("--db", choices=database.KINDS, default=database.SQLITE)
    return vars(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(StackManager(**parse_arguments(sys.argv[1:])).run())
