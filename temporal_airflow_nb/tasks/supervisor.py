"""Airflow's task supervisor for a process that a zygote forked, or that was started as a new interpreter.

Airflow's ``WatchedSubprocess.start`` forks the supervised process itself. The worker process has many threads, and must
not fork: here the process exists already, and a supervisor is attached to it (:func:`take_over`). A supervisor lives in
one thread of the worker, which also serves the process. Signals go to the process's group, which the process leads.

Several private parts of Airflow's supervisor are used, because it has no public way to be given a process;
``tests/compatibility/test_airflow_contract.py`` lists and checks them.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import psutil
from airflow.dag_processing.processor import DagFileProcessorProcess
from airflow.sdk.execution_time.supervisor import SERVER_TERMINATED, ActivitySubprocess, ProcessTracker
from uuid6 import uuid7

from temporal_airflow_nb.tasks.zygotes import Child, DagFile, Pipes, Zygotes, kill_group

if TYPE_CHECKING:
    from airflow.sdk.api.client import Client
    from airflow.sdk.api.datamodels._generated import TaskInstance
    from structlog.typing import FilteringBoundLogger

# Seconds between SIGTERM and SIGKILL.
_KILL_DELAY = 5.0


class SpawnedInterpreter(ProcessTracker):  # type: ignore[misc]
    """A task process with a new interpreter, started by the worker.

    Used on macOS, where forks aren't safe, and where tasks run as another user.
    """

    ProcessNotFound = ProcessLookupError
    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self, process: subprocess.Popen[bytes], exit_channel: socket.socket) -> None:
        self.process = process
        self.exit_channel = exit_channel
        self._created = psutil.Process(process.pid).create_time()

    @property
    def pid(self) -> int:
        """The id of the process, and of the group that it leads."""
        return self.process.pid

    def send_signal(self, s: signal.Signals) -> None:
        """Send a signal to the process, not to its group."""
        self.process.send_signal(s)

    def wait(self, timeout: float | None) -> int:
        """Return the exit code, or raise ``TimeoutExpired``."""
        return self.process.wait(timeout)

    def on_exit_readable(self, _: socket.socket) -> bool:
        """Reap the process. The channel became readable because the exit closed the process's end of it."""
        # Anything that the process has started may have inherited that end: then the channel stays open until it ends,
        # and Airflow's own check of the exit code reaps the process.
        self.process.wait()
        return False

    def kill_group(self) -> None:
        """Kill the process and everything in its group."""
        kill_group(self.process.pid, self._created)

    def close(self) -> None:
        """Close the worker's end of the exit channel."""
        self.exit_channel.close()


def start_interpreter(env: dict[str, str]) -> tuple[SpawnedInterpreter, Pipes]:
    """Start a task process the way Airflow does on macOS: a new interpreter with the pipes as its stdio.

    ``start_new_session`` makes it the leader of its group, as a zygote's child is.
    """
    own_ends, child_ends = zip(*(socket.socketpair() for _ in range(4)), strict=True)
    requests, stdout, stderr, channel = own_ends
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from temporal_airflow_nb.tasks import preload;"
            "preload.accept_every_executor(); preload.let_crashes_end_the_process();"
            "from airflow.sdk.execution_time.supervisor import _child_exec_main; _child_exec_main()",
        ],
        stdin=child_ends[0],
        stdout=child_ends[1],
        stderr=child_ends[2],
        pass_fds=[child_ends[3].fileno()],
        start_new_session=True,
        env={**os.environ, **env},
    )
    for end in child_ends:
        end.close()
    # Airflow's `_child_exec_main` inherits no log channel: the process requests one later with `ResendLoggingFD`. The
    # supervisor wants a socket here all the same, and gets one whose other end is closed.
    logs, unused = socket.socketpair()
    unused.close()
    return SpawnedInterpreter(process, channel), Pipes(requests, stdout, stderr, logs)


@attrs.define(kw_only=True)
class TaskSupervisor(ActivitySubprocess):  # type: ignore[misc]
    """
    Supervises one try of one task, as Airflow's :class:`ActivitySubprocess` does, in a process started elsewhere.

    Any thread may call ``wait``. It returns as soon as the process is gone.
    """

    wakeup: socket.socket = attrs.field(repr=False)
    """Becomes readable when :attr:`should_stop` may have changed."""

    should_stop: Callable[[], bool] = attrs.field(repr=False)
    """Whether the try is to be stopped. Only this supervisor's thread calls it."""

    stopped: bool = attrs.field(default=False, init=False)
    """Whether :attr:`should_stop` has ended the try, so that its outcome isn't recorded."""

    @classmethod
    def start_try(
        cls,
        *,
        what: TaskInstance,
        dag_rel_path: str,
        bundle_info: Any,
        client: Client,
        logger: FilteringBoundLogger,
        child: Child | SpawnedInterpreter,
        pipes: Pipes,
        wakeup: socket.socket,
        should_stop: Callable[[], bool],
    ) -> TaskSupervisor:
        """Attach a supervisor to a process that waits for its instructions, and send it the task."""
        fields = {"id": what.id, "client": client, "wakeup": wakeup, "should_stop": should_stop}
        supervisor: TaskSupervisor = take_over(cls, child, pipes, process_log=logger, **fields)
        # The selector is what Airflow's monitor loop waits in: a byte on `wakeup` ends that wait, and the loop then
        # calls `_send_heartbeat_if_needed`, which asks `should_stop`.
        supervisor.selector.register(
            wakeup, selectors.EVENT_READ, (lambda sock: bool(sock.recv(4096)), lambda _: None)
        )
        # Airflow's loop would send a heartbeat at once, which costs a transaction; the start already counts as one.
        supervisor._last_heartbeat_attempt = time.monotonic()  # type: ignore[misc]
        supervisor._on_child_started(
            ti=what, dag_rel_path=dag_rel_path, bundle_info=bundle_info, sentry_integration=""
        )
        return supervisor

    def wait(self) -> int:
        """Serve the process until it ends; return its exit code."""
        # Airflow's `wait` also installs signal handlers, which Python allows in the main thread only.
        try:
            self._monitor_subprocess()
        finally:
            self.selector.close()
        if self._exit_code is None:  # type: ignore[has-type]
            self._exit_code = 1  # type: ignore[misc]
        if not self.stopped:
            try:
                self.update_task_state_if_needed()
            finally:
                self._upload_logs()
        return int(self._exit_code)

    def _send_heartbeat_if_needed(self) -> None:
        # A task that has reported its end still runs callbacks and listeners, for which Airflow leaves it some time.
        if self.stopped or self._terminal_state or not self.should_stop():
            super()._send_heartbeat_if_needed()
            return
        # A stop may come from a clear or a mark. Then Airflow refuses the next heartbeat and ends the task itself, with
        # SERVER_TERMINATED: send one now, whatever the interval.
        self._last_heartbeat_attempt = -math.inf  # type: ignore[misc]
        super()._send_heartbeat_if_needed()
        if self._terminal_state != SERVER_TERMINATED:
            self.stopped = True
            self.process_log.error("The task is being stopped.")
            self.kill(signal.SIGTERM, escalation_delay=_KILL_DELAY, force=True)

    def _send_terminal_state_msg(self, msg: Any) -> None:
        # A task that gets SIGTERM may still report a failure. Recording it would use up one of its tries.
        if self.stopped:
            return
        super()._send_terminal_state_msg(msg)

    @property
    def end_is_unrecorded(self) -> bool:
        """Whether the try's end isn't in the database: its process died or was killed, or its report wasn't stored."""
        return (
            self._terminal_state == SERVER_TERMINATED
            or self._pending_terminal_state_msg is not None
            or (bool(self._exit_code) and self._terminal_state is None)
        )


@attrs.define(kw_only=True)
class CallbackSupervisor(DagFileProcessorProcess):  # type: ignore[misc]
    """Serves a process that parses a file or runs callbacks, as Airflow's DAG processor does."""

    timed_out: bool = attrs.field(default=False, init=False)
    """Whether the process was killed because it took too long."""

    def wait(self, timeout: float) -> int:
        """Serve the process until it ends, or kill it after ``timeout`` seconds; return its exit code."""
        deadline = time.monotonic() + timeout
        while self._exit_code is None or self._open_sockets:
            self._service_subprocess(max_wait_time=min(5.0, max(0.0, deadline - time.monotonic())))
            if time.monotonic() > deadline:
                self.timed_out = self._exit_code is None
                # A process that the file has started may still hold the pipes of one that has ended.
                self._process.kill_group()
                break
        self.selector.close()
        return self.exit_code

    @property
    def exit_code(self) -> int:
        """The exit code of the process after :meth:`wait`; negative for a signal."""
        return -signal.SIGKILL if self._exit_code is None else int(self._exit_code)


def run_dag_processor(
    zygotes: Zygotes,
    file: DagFile,
    *,
    rel_path: str,
    client: Client,
    logger: FilteringBoundLogger,
    callbacks: list[Any],
    timeout: float,
) -> CallbackSupervisor:
    """
    Parse ``file``, or run callbacks of its DAGs, in a process of its own, and return when the process has ended.

    Parameters
    ----------
    timeout
        Seconds after which the process is killed.
    """
    child, pipes = zygotes.spawn("dag_processor", file)
    try:
        with open(os.devnull, "wb") as unused:
            supervisor: CallbackSupervisor = take_over(
                CallbackSupervisor,
                child,
                pipes,
                process_log=logger,
                id=uuid7(),
                client=client,
                logger_filehandle=unused,
                bundle_name=file.bundle_name,
                dag_file_rel_path=rel_path,
            )
            supervisor.had_callbacks = bool(callbacks)
            supervisor._on_child_started(callbacks, file.path, file.bundle_path, file.bundle_name)
            supervisor.wait(timeout)
    finally:
        for end in (*pipes, child):
            end.close()
    return supervisor


def take_over(kind: Any, child: Child | SpawnedInterpreter, pipes: Pipes, **fields: Any) -> Any:
    """Return a supervisor of ``kind`` for a process that a zygote or :func:`start_interpreter` has started.

    It does what ``WatchedSubprocess.start`` does in the parent after its fork.
    """
    supervisor = kind(
        pid=child.pid,
        stdin=pipes.requests,
        process=child,
        start_time=time.monotonic(),
        new_process_group=True,
        **fields,
    )
    supervisor._register_pipe_readers(pipes.stdout, pipes.stderr, pipes.requests, pipes.logs, data={})
    # Airflow notices an exit when one of the pipes becomes readable. A process that ends after it has closed its pipes
    # would be noticed only at the next heartbeat, up to five seconds later: the exit channel ends the wait.
    supervisor.selector.register(
        child.exit_channel, selectors.EVENT_READ, (child.on_exit_readable, supervisor.selector.unregister)
    )
    return supervisor
