"""The worker's side of the zygotes: starts them, keeps one per DAG file, and has them fork task processes.

The worker process has many threads, and all of them may call :class:`Zygotes`. Three kinds of locks are taken, in this
order: the lock of one DAG file, under which the file is parsed; ``Zygotes._lock`` for the tables of zygotes; the lock
of one connection, for a single ``send``. ``Zygotes._lock`` is held for moments only, except while a new root zygote is
started; parsing happens outside it, so that tasks of other files go on.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import psutil
import structlog
from airflow.sdk.execution_time.supervisor import ProcessTracker

from temporal_airflow_nb.tasks.parsing import ParseReport, is_current

if TYPE_CHECKING:
    from temporal_airflow_nb.tasks.zygote import Message

log = structlog.get_logger(__name__)

# The file zygote that was used least recently is retired beyond this number.
MAX_FILE_ZYGOTES = 8
# Seconds within which a zygote has to report the pid of a child.
_SPAWN_TIMEOUT = 30.0


class ZygoteLostError(Exception):
    """The zygote of a task ended while the task ran, so that the task's exit status is unknown."""


class DagFile(NamedTuple):
    """A DAG file and its bundle, as a task process opens them."""

    bundle_name: str
    bundle_version: str | None
    bundle_path: str
    path: str


class Pipes(NamedTuple):
    """The supervisor's ends of a child's pipes."""

    requests: socket.socket
    stdout: socket.socket
    stderr: socket.socket
    logs: socket.socket


class Child(ProcessTracker):  # type: ignore[misc]
    """
    A process that a zygote forked and reaps.

    It isn't a child of the worker, which therefore can't wait for it. The zygote writes its pid and later its wait
    status to ``exit_channel``. A channel that closes without a status means that the zygote has died. One thread uses a
    ``Child``: that of its supervisor.
    """

    ProcessNotFound = ProcessLookupError
    TimeoutExpired = TimeoutError

    def __init__(self, exit_channel: socket.socket) -> None:
        self.exit_channel = exit_channel
        self._buffer = b""
        self._exit_code: int | None = None
        self._lost = False
        exit_channel.settimeout(_SPAWN_TIMEOUT)
        line = self._read_line()
        if line is None:
            raise ZygoteLostError("The zygote ended before it forked.")
        self._pid = int(line)
        exit_channel.setblocking(False)

    @property
    def pid(self) -> int:
        """The id of the process, and of the group that it leads."""
        return self._pid

    def _read_line(self) -> str | None:
        while b"\n" not in self._buffer:
            data = self.exit_channel.recv(256)
            if not data:
                return None
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()

    def send_signal(self, s: signal.Signals) -> None:
        """Send a signal to the process, not to its group."""
        # The zygote has reaped it: the pid may belong to another process by now.
        if self._exit_code is not None:
            raise ProcessLookupError(self._pid)
        os.kill(self._pid, s)

    def wait(self, timeout: float | None) -> int:
        """Return the exit code; raise ``TimeoutExpired``, or ``ZygoteLostError`` if the zygote has died."""
        if self._exit_code is None and not self._lost:
            self.exit_channel.settimeout(timeout)
            try:
                self._take_status(self._read_line())
            except (BlockingIOError, TimeoutError):
                raise TimeoutError(f"Process {self._pid} is running.") from None
            finally:
                self.exit_channel.setblocking(False)
        if self._exit_code is None:
            raise ZygoteLostError(f"The zygote of process {self._pid} ended.")
        return self._exit_code

    def on_exit_readable(self, _: socket.socket) -> bool:
        """Read the exit status. Airflow's supervisor closes the channel after this call."""
        self._take_status(self._read_line())
        return False

    def _take_status(self, line: str | None) -> None:
        if line is None:
            # On Linux the kernel has killed the process with its zygote, but not what the process has started.
            self._lost = True
            self._kill_group()
            return
        code = os.waitstatus_to_exitcode(int(line))
        self._exit_code = _SignalExitCode(code) if code < 0 else code

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)


class _SignalExitCode(int):
    """A negative exit code with the signal's name, which Airflow's supervisor logs. psutil returns the same."""

    @property
    def name(self) -> str:
        return signal.Signals(-self).name


def _seqpacket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class _ZygoteConnection:
    """A connection to one zygote process, shared by the threads of the worker."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self._lock = threading.Lock()

    def send(self, message: Message, fds: list[int]) -> None:
        data = json.dumps(message).encode()
        with self._lock:
            try:
                socket.send_fds(self.control, [data], fds)
            except OSError as error:
                raise ZygoteLostError("The zygote has ended.") from error

    def spawn(self, target: str, env: dict[str, str]) -> tuple[Child, Pipes]:
        own_ends, child_ends = zip(*(socket.socketpair() for _ in range(5)), strict=True)
        try:
            self.send({"op": "spawn", "target": target, "env": env}, [end.fileno() for end in child_ends])
        except ZygoteLostError:
            for end in own_ends:
                end.close()
            raise
        finally:
            # The kernel holds the sent descriptors until the zygote receives them. Open copies here would hide the end
            # of the child.
            for end in child_ends:
                end.close()
        requests, stdout, stderr, logs, channel = own_ends
        return Child(channel), Pipes(requests, stdout, stderr, logs)

    def retire(self) -> None:
        with suppress(ZygoteLostError):
            self.send({"op": "retire"}, [])

    def close(self) -> None:
        self.control.close()


@dataclass
class _FileZygote:
    zygote: _ZygoteConnection
    stamps: dict[str, list[int]]
    shared: bool


class Zygotes:
    """
    All zygotes of a worker. Any thread may call its methods.

    Parameters
    ----------
    root
        The control socket of a root zygote that was forked before this process had threads: see
        :func:`preload_and_fork`. If it is None or its zygote has died, a root zygote is started as a new interpreter
        when the next process is needed, because a process with threads must not fork.
    env
        Variables to set in each child; read again for every child.
    """

    def __init__(self, root: socket.socket | None = None, env: dict[str, str] | None = None) -> None:
        self.env = env if env is not None else {}
        self._root = _ZygoteConnection(root) if root is not None else None
        self._process: subprocess.Popen[bytes] | None = None
        self._files: OrderedDict[DagFile, _FileZygote] = OrderedDict()
        self._locks: dict[DagFile, threading.Lock] = {}
        self._lock = threading.Lock()

    def spawn(self, target: str, file: DagFile | None = None) -> tuple[Child, Pipes]:
        """
        Have a zygote fork a process that runs ``target``: the file's zygote if its parse can be shared, else the root.

        Raises
        ------
        ZygoteLostError
            No zygote could fork, not even a new one.
        """
        for attempt in range(3):
            zygote = None
            try:
                if file is not None:
                    zygote = self._find_zygote(file)
                return (zygote or self._root_zygote()).spawn(target, self.env)
            except ZygoteLostError:
                log.warning("Zygote lost; starting another", file=file, attempt=attempt)
                self._forget(file, zygote)
        raise ZygoteLostError("No zygote could start a process.")

    def warm(self, file: DagFile) -> None:
        """Parse ``file`` in a zygote now, so that its first task doesn't wait for that."""
        try:
            self._find_zygote(file)
        except ZygoteLostError:
            self._forget(file, None)

    def _root_zygote(self) -> _ZygoteConnection:
        # The lock is held while the interpreter is started, so that two threads don't start two. The import of Airflow
        # goes on after that: messages wait in the socket.
        with self._lock:
            if self._root is None:
                own_end, child_end = _seqpacket_pair()
                code = (
                    "import socket, sys; from temporal_airflow_nb.tasks.preload import preload; preload();"
                    "from temporal_airflow_nb.tasks.zygote import main; main(socket.socket(fileno=int(sys.argv[1])))"
                )
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code, str(child_end.fileno())],
                    pass_fds=[child_end.fileno()],
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **self.env},
                )
                child_end.close()
                self._root = _ZygoteConnection(own_end)
            return self._root

    def _forget(self, file: DagFile | None, zygote: _ZygoteConnection | None) -> None:
        # Closing the control socket makes the zygote kill its children, if it is still alive.
        with self._lock:
            if file is not None and zygote is not None:
                self._files.pop(file, None)
                zygote.close()
            elif self._root is not None:
                self._root.close()
                self._root = None

    def _find_zygote(self, file: DagFile) -> _ZygoteConnection | None:
        """Return the zygote that has parsed ``file`` as it is now; None if each task has to parse the file itself."""
        # Threads that start tasks of the same file wait here for one parse. Locks are never removed: there are as many
        # as files that this worker has run.
        with self._lock:
            lock = self._locks.setdefault(file, threading.Lock())
        with lock:
            with self._lock:
                known = self._files.get(file)
                if known is not None:
                    self._files.move_to_end(file)
            if known is None or not is_current(known.stamps):
                # A retired zygote stays until its running tasks have ended: an edit interrupts no task.
                if known is not None:
                    known.zygote.retire()
                known = self._load(file)
                with self._lock:
                    self._files[file] = known
                    while len(self._files) > MAX_FILE_ZYGOTES:
                        self._files.popitem(last=False)[1].zygote.retire()
            return known.zygote if known.shared else None

    def _load(self, file: DagFile) -> _FileZygote:
        own_end, child_end = _seqpacket_pair()
        read_end, write_end = os.pipe()
        try:
            self._root_zygote().send(
                {
                    "op": "load",
                    "path": file.path,
                    "bundle_name": file.bundle_name,
                    "bundle_path": file.bundle_path,
                    "env": self.env,
                },
                [child_end.fileno(), write_end],
            )
        finally:
            # Before the read below: it ends when the last copy of the write end is closed.
            child_end.close()
            os.close(write_end)
        with open(read_end, "rb") as pipe:
            report = pipe.read()
        # The zygote died while it parsed, and this task parses the file itself. An empty stamp differs from that of any
        # existing file, so that the next task has another zygote parse it.
        if not report:
            own_end.close()
            return _FileZygote(_ZygoteConnection(own_end), {file.path: []}, shared=False)
        result: ParseReport = json.loads(report)
        if not result["shared"]:
            log.info("Tasks of this file parse it themselves.", file=file.path, reason=result["reason"])
        return _FileZygote(_ZygoteConnection(own_end), result["stamps"], result["shared"])

    def stop(self) -> None:
        """End every zygote and the processes that were forked from them."""
        with self._lock:
            for known in self._files.values():
                known.zygote.close()
            self._files.clear()
            if self._root is not None:
                self._root.close()
                self._root = None
        if self._process is not None:
            self._process.wait(5)


def preload_and_fork() -> Zygotes:
    """Import Airflow into this process and fork the root zygote from it.

    Called in the main thread before the process starts another one: a fork copies only the calling thread, and Linux
    ties the zygote's death signal to that thread.

    Raises
    ------
    RuntimeError
        The process has more than one thread already.
    """
    from temporal_airflow_nb.tasks import zygote
    from temporal_airflow_nb.tasks.preload import preload

    preload()

    # psutil counts native threads too, those of libraries that `threading` doesn't know.
    if psutil.Process().num_threads() > 1:
        raise RuntimeError("The root zygote must be forked before the process starts a thread.")
    own_end, child_end = _seqpacket_pair()
    if os.fork() == 0:
        own_end.close()
        try:
            zygote.main(child_end)
        finally:
            os._exit(1)
    child_end.close()
    return Zygotes(own_end)
