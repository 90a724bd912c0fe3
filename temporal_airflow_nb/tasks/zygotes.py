"""The worker's side of the zygotes: starts them, and has them fork task processes.

A DAG file's first try is forked from the root zygote and reports which installed modules the file imports. Later tries
are forked from a package zygote that has imported them, as soon as it is ready and if its modules allow forks. Files
that import the same modules share one.

The worker process has many threads, and all of them may call :class:`Zygotes`. Two kinds of locks are taken, in this
order: ``Zygotes._lock`` for the tables of zygotes; the lock of one connection, for a single ``send``. ``Zygotes._lock``
is held for moments only, except while a new root zygote is started.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import psutil
import structlog
from airflow.sdk.execution_time.supervisor import ProcessTracker

from temporal_airflow_nb.tasks.installed import installation_stamp

if TYPE_CHECKING:
    from temporal_airflow_nb.tasks.imports import ImportReport
    from temporal_airflow_nb.tasks.zygote import Message

log = structlog.get_logger(__name__)

# The package zygote that was used least recently is retired beyond this number.
MAX_PACKAGE_ZYGOTES = 8
# Seconds within which a zygote has to report the pid of a child, and how often the worker waits for so long. After a
# machine's sleep the first wait may be over at once, while the zygote is about to answer.
_SPAWN_TIMEOUT = 30.0
_SPAWN_WAITS = 4


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

    It isn't a child of the worker, which therefore can't wait for it. The zygote writes its pid and later its exit code
    to ``exit_channel``. A channel that closes without an exit code means that the zygote has died. One thread uses a
    ``Child``: that of its supervisor, which has to :meth:`close` it.

    Parameters
    ----------
    exit_channel
        The worker's end of the channel.
    on_report
        Called with what the process reports about its imports.
    """

    ProcessNotFound = ProcessLookupError
    TimeoutExpired = TimeoutError

    def __init__(self, exit_channel: socket.socket, on_report: Callable[[ImportReport], None]) -> None:
        self.exit_channel = exit_channel
        self._on_report = on_report
        self._buffer = b""
        self._exit_code: int | None = None
        self._lost = False
        exit_channel.settimeout(_SPAWN_TIMEOUT)
        for wait in range(_SPAWN_WAITS):
            try:
                line = self._read_line()
                break
            except TimeoutError:
                log.warning("A zygote doesn't answer", seconds=(wait + 1) * _SPAWN_TIMEOUT)
        else:
            raise ZygoteLostError("The zygote doesn't answer.")
        if line is None:
            raise ZygoteLostError("The zygote ended before it forked.")
        self._pid = int(line)
        try:
            self._created = psutil.Process(self._pid).create_time()
        except psutil.NoSuchProcess:
            raise ZygoteLostError("The zygote ended after it had forked.") from None
        # The zygote reaps the process when the last copy of this end is closed. Airflow's supervisor closes
        # `exit_channel` as soon as the exit code is read; this copy keeps the pid from being used again until `close`.
        self._hold = exit_channel.dup()
        exit_channel.setblocking(False)

    @property
    def pid(self) -> int:
        """The id of the process, and of the group that it leads."""
        return self._pid

    def _read_line(self) -> str | None:
        while b"\n" not in self._buffer:
            data = self.exit_channel.recv(65536)
            if not data:
                return None
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()

    def _read_exit_code(self) -> None:
        """Read lines until the exit code or the end of the channel; a report may come before."""
        while (line := self._read_line()) is not None and line.startswith("{"):
            self._on_report(json.loads(line))
        if line is None:
            # On Linux the kernel has killed the process with its zygote, but not what the process has started.
            self._lost = True
            self.kill_group()
            return
        code = int(line)
        self._exit_code = _SignalExitCode(code) if code < 0 else code

    def send_signal(self, s: signal.Signals) -> None:
        """Send a signal to the process, not to its group."""
        if self._exit_code is not None or self._lost:
            raise ProcessLookupError(self._pid)
        os.kill(self._pid, s)

    def wait(self, timeout: float | None) -> int:
        """Return the exit code; raise ``TimeoutExpired``, or ``ZygoteLostError`` if the zygote has died."""
        if self._exit_code is None and not self._lost:
            self.exit_channel.settimeout(timeout)
            try:
                self._read_exit_code()
            except (BlockingIOError, TimeoutError):
                raise TimeoutError(f"Process {self._pid} is running.") from None
            finally:
                self.exit_channel.setblocking(False)
        if self._exit_code is None:
            raise ZygoteLostError(f"The zygote of process {self._pid} ended.")
        return self._exit_code

    def on_exit_readable(self, _: socket.socket) -> bool:
        """Read what has arrived. Airflow's supervisor closes the channel unless this returns True."""
        try:
            self._read_exit_code()
        except BlockingIOError:
            return True
        return False

    def kill_group(self) -> None:
        """Kill the process and everything in its group."""
        kill_group(self._pid, self._created)

    def close(self) -> None:
        """Let the zygote reap the process. A process that runs is killed."""
        self._hold.close()
        self.exit_channel.close()


def kill_group(pid: int, created: float) -> None:
    """Kill all processes of a group that ``pid``, created at ``created``, has led, unless the id is used again."""
    with suppress(psutil.NoSuchProcess):
        if psutil.Process(pid).create_time() != created:
            return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class _SignalExitCode(int):
    """A negative exit code with the signal's name, which Airflow's supervisor logs. psutil returns the same."""

    @property
    def name(self) -> str:
        return signal_name(-self)


def signal_name(number: int) -> str:
    """Return the name of a signal. A realtime signal has none in Python."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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

    def spawn(
        self, target: str, env: dict[str, str], on_report: Callable[[ImportReport], None]
    ) -> tuple[Child, Pipes]:
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
        try:
            return Child(channel, on_report), Pipes(requests, stdout, stderr, logs)
        except BaseException:
            for end in own_ends:
                end.close()
            raise

    def retire(self) -> None:
        with suppress(ZygoteLostError):
            self.send({"op": "retire"}, [])
        self.close()

    def close(self) -> None:
        self.control.close()


class _PackageZygote:
    """A zygote that imports installed modules. The lock of :class:`Zygotes` protects it."""

    def __init__(self, connection: _ZygoteConnection, result: int, wait_until: float) -> None:
        self.connection = connection
        self.wait_until = wait_until
        """The time, of ``time.monotonic``, until which a try should wait for the zygote."""
        self.obstacle = ""
        """The reason why it can't be forked."""
        self._is_ready = False
        # The read end of the pipe for the zygote's report; None once it is read.
        self._result: int | None = result

    def is_usable(self) -> bool:
        """Return whether the modules are imported and the zygote can be forked. Doesn't wait."""
        if self._result is not None and select.select([self._result], [], [], 0)[0]:
            with open(self._result, encoding="utf-8") as pipe:
                report = pipe.read()
            self._result = None
            self.obstacle = report.strip() if report else "importing its packages ended the process"
            self._is_ready = not self.obstacle
        return self._is_ready

    def retire(self) -> None:
        """Have the zygote end when its last child has ended."""
        self.connection.retire()
        if self._result is not None:
            os.close(self._result)
            self._result = None


@dataclass
class _Imports:
    """The installed modules that a DAG file imports, as its last process has reported them."""

    stamp: list[int]
    modules: tuple[str, ...]
    seconds: float
    obstacle: str


def _stamp(path: str) -> list[int]:
    """Return values of a file that change when it is edited."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_mtime_ns, found.st_size, found.st_ino]


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
        # Interpreters of root zygotes that this process has started, and has to reap.
        self._interpreters: list[subprocess.Popen[bytes]] = []
        self._imports: dict[str, _Imports] = {}
        self._packages: OrderedDict[frozenset[str], _PackageZygote] = OrderedDict()
        self._installation = installation_stamp()
        self._lock = threading.Lock()

    def spawn(self, target: str, file: DagFile | None = None) -> tuple[Child, Pipes]:
        """
        Have a zygote fork a process that runs ``target``.

        Parameters
        ----------
        target
            A key of ``targets.TARGETS``.
        file
            The DAG file that the process executes.

        Raises
        ------
        ZygoteLostError
            No zygote could fork, not even a new one.
        """
        on_report = partial(self._learn, file.path, _stamp(file.path)) if file is not None else _ignore
        for attempt in range(3):
            zygote = None
            try:
                zygote = self._choose(file)
                return zygote.spawn(target, self.env, on_report)
            except ZygoteLostError:
                log.warning("Zygote lost; starting another", file=file, attempt=attempt)
                if zygote is not None:
                    self._forget(zygote)
        raise ZygoteLostError("No zygote could start a process.")

    def _choose(self, file: DagFile | None) -> _ZygoteConnection:
        """Return the zygote to fork from: one with the file's imports if it can be used soon, else the root."""
        while True:
            with self._lock:
                self._notice_upgrades()
                package = self._package_zygote(file.path) if file is not None else None
                if package is None or package.obstacle:
                    return self._root_zygote()
                if package.is_usable():
                    return package.connection
                # Importing the modules in the new process would take longer than the rest of the zygote's import.
                if time.monotonic() > package.wait_until:
                    return self._root_zygote()
            time.sleep(0.005)

    def obstacle(self, file: DagFile) -> str:
        """Return the reason why each try imports the file's installed packages itself; empty if there is none."""
        with self._lock:
            known = self._imports.get(file.path)
            if known is None:
                return ""
            package = self._packages.get(frozenset(known.modules))
            return known.obstacle or (package.obstacle if package is not None else "")

    def _learn(self, path: str, stamp: list[int], report: ImportReport) -> None:
        """Remember what a process has reported about the file that it executed, and import it in a zygote."""
        with self._lock:
            known = self._imports.get(path)
            modules = known.modules if known is not None and known.stamp == stamp else ()
            modules += tuple(name for name in report["modules"] if name not in modules)
            self._imports[path] = _Imports(stamp, modules, report["seconds"], report["obstacle"])
            with suppress(ZygoteLostError):
                self._package_zygote(path)

    def _package_zygote(self, path: str) -> _PackageZygote | None:
        """Return the zygote that imports the file's modules, started now if need be; None if there can be none."""
        known = self._imports.get(path)
        # An edited file may import other modules, and its next process reports them.
        if known is None or known.obstacle or known.stamp != _stamp(path):
            return None
        modules = frozenset(known.modules)
        if modules not in self._packages:
            self._packages[modules] = self._load(known)
        self._packages.move_to_end(modules)
        while len(self._packages) > MAX_PACKAGE_ZYGOTES:
            self._packages.popitem(last=False)[1].retire()
        return self._packages[modules]

    def _load(self, imports: _Imports) -> _PackageZygote:
        own_end, child_end = _seqpacket_pair()
        read_end, write_end = os.pipe()
        try:
            # A message has a limited size: the names are in a file.
            with tempfile.TemporaryFile() as names:
                names.write("\n".join(imports.modules).encode())
                names.seek(0)
                self._root_zygote().send(
                    {"op": "load", "env": self.env}, [child_end.fileno(), write_end, names.fileno()]
                )
        except ZygoteLostError:
            own_end.close()
            os.close(read_end)
            # Whoever needs a root zygote next starts another.
            if self._root is not None:
                self._root.close()
                self._root = None
            raise
        finally:
            # The pipe ends when the last copy of the write end is closed.
            child_end.close()
            os.close(write_end)
        # Twice the time that the file has taken, and some time to fork.
        wait_until = time.monotonic() + 2 * imports.seconds + 0.1
        return _PackageZygote(_ZygoteConnection(own_end), read_end, wait_until)

    def _root_zygote(self) -> _ZygoteConnection:
        # The lock is held while the interpreter is started, so that two threads don't start two. The import of Airflow
        # goes on after that: messages wait in the socket.
        if self._root is None:
            self._interpreters = [process for process in self._interpreters if process.poll() is None]
            own_end, child_end = _seqpacket_pair()
            code = (
                "import socket, sys; from temporal_airflow_nb.tasks.preload import preload; preload();"
                "from temporal_airflow_nb.tasks.zygote import main; main(socket.socket(fileno=int(sys.argv[1])))"
            )
            process = subprocess.Popen(
                [sys.executable, "-c", code, str(child_end.fileno())],
                pass_fds=[child_end.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.env},
            )
            self._interpreters.append(process)
            child_end.close()
            self._root = _ZygoteConnection(own_end)
        return self._root

    def _notice_upgrades(self) -> None:
        """Retire all zygotes if a package was installed, upgraded or removed since they imported it."""
        stamp = installation_stamp()
        if stamp == self._installation:
            return
        log.info("Installed packages have changed; later tasks import them anew")
        self._installation = stamp
        self._imports.clear()
        for package in self._packages.values():
            package.retire()
        self._packages.clear()
        if self._root is not None:
            self._root.retire()
            self._root = None

    def _forget(self, zygote: _ZygoteConnection) -> None:
        # Closing the control socket makes the zygote kill its children, if it is still alive.
        zygote.close()
        with self._lock:
            if self._root is zygote:
                self._root = None
            for modules, package in list(self._packages.items()):
                if package.connection is zygote:
                    del self._packages[modules]

    def stop(self) -> None:
        """End every zygote and the processes that were forked from them."""
        with self._lock:
            for package in self._packages.values():
                package.connection.close()
            self._packages.clear()
            if self._root is not None:
                self._root.close()
                self._root = None
        for process in self._interpreters:
            process.wait(5)


def _ignore(_: ImportReport) -> None:
    pass


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
