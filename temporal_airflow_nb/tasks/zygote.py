"""The zygotes: processes that have installed packages imported and are forked for each try.

The worker forks the root zygote, which has Airflow imported. For DAG files that import further installed packages, the
root zygote forks a package zygote, which imports these. No zygote executes anything of a user: each try is a fork that
executes the DAG file itself, as with Airflow's executors. Every zygote has a single thread, so that a fork is safe, and
none of them uses the database. A zygote is the parent of its children: it reaps them, and kills them when the worker
has died.

The worker controls a zygote over a ``SOCK_SEQPACKET`` socket, which keeps message boundaries. A message carries the
child's ends of the pipes as file descriptors. Messages are JSON objects with an ``op``:

``load``
    (root) Fork a package zygote. Descriptors: its control socket, a pipe for the result, and a file with the names of
    the modules, one per line. The result is empty if the zygote can be forked, else the reason why not.
``spawn``
    Fork a child that runs ``target`` (a key of ``targets.TARGETS``). Descriptors: requests, stdout, stderr, logs,
    exit channel. The zygote writes ``<pid>\\n`` and later ``<wait status>\\n`` to the exit channel, and the child may
    write a line of JSON in between: see :mod:`temporal_airflow_nb.tasks.imports`. The ended child stays a zombie until
    the worker closes its end of the channel: until then, its pid can't belong to another process.
``retire``
    End as soon as no child is left. A control socket that closes without this message means that the worker has died:
    the zygote kills its children and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from functools import partial
from typing import Literal, NoReturn, TypedDict

from temporal_airflow_nb.tasks import targets
from temporal_airflow_nb.tasks.fork_safety import (
    ProcessState,
    find_numpy_generators,
    find_obstacle,
    recording_seeds,
    reseed,
)
from temporal_airflow_nb.tasks.imports import report_imports

# Bytes of one message, which has the environment of the child in it.
MAX_MESSAGE = 64 * 1024
_PR_SET_PDEATHSIG = 1


class SpawnMessage(TypedDict):
    """Asks a zygote to fork a child."""

    op: Literal["spawn"]
    target: str
    env: dict[str, str]


class LoadMessage(TypedDict):
    """Asks the root zygote to fork a package zygote."""

    op: Literal["load"]
    env: dict[str, str]


class RetireMessage(TypedDict):
    """Asks a zygote to end when its last child has ended."""

    op: Literal["retire"]


Message = SpawnMessage | LoadMessage | RetireMessage


def die_with_parent(sig: signal.Signals) -> None:
    """Have Linux send ``sig`` to this process when its parent ends. Does nothing on other systems.

    The kernel watches the thread that forked, not the whole parent process: only processes that have one thread, or
    fork in their main thread, may use this.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, sig)


class Zygote:
    """The event loop of one zygote process.

    Parameters
    ----------
    control
        This process's end of the control socket.
    """

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        # Descriptor of the exit channel by the pid of each child that the worker watches.
        self.exit_channels: dict[int, int] = {}
        # Those of them whose end isn't reported yet.
        self.living: set[int] = set()
        # Children without an exit channel: package zygotes, which end with SIGTERM when the root dies, and children
        # that the worker has given up.
        self.unwatched: set[int] = set()
        self.retired = False
        self.selector = selectors.DefaultSelector()
        self.wakeup, wakeup_write = socket.socketpair()
        wakeup_write.setblocking(False)
        self.wakeup.setblocking(False)
        self.wakeup_write = wakeup_write
        # A child's end arrives as SIGCHLD; Python writes the signal's number to this socket, which ends the `select`.
        # The handler itself does nothing, but without a handler Python doesn't see the signal.
        signal.set_wakeup_fd(wakeup_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(self) -> NoReturn:
        """Serve until the worker retires this zygote and its last child has ended."""
        self.selector.register(self.control, selectors.EVENT_READ, self._read_message)
        self.selector.register(self.wakeup, selectors.EVENT_READ, self._notice_ends)
        # The root zygote's end would end its package zygotes, so it waits for them, too.
        while not self.retired or self.exit_channels or self.unwatched:
            for key, _ in self.selector.select():
                key.data()
        os._exit(0)

    def _read_message(self) -> None:
        data, fds, _, _ = socket.recv_fds(self.control, MAX_MESSAGE, 8)
        # End of file: the worker has died, or has closed its end without retiring this zygote.
        if not data:
            self._end()
        message = json.loads(data)
        match message["op"]:
            case "spawn":
                self._spawn(message, fds)
            case "load":
                self._load(message, fds)
            case "retire":
                # The worker drops its end of the socket after this message. Its end of file must not count as the
                # worker's death.
                self.retired = True
                self.selector.unregister(self.control)
        # Received descriptors belong to the child: this process keeps only exit channels. An open copy of any other
        # would keep the supervisor from seeing the end of a pipe.
        for fd in fds:
            with contextlib.suppress(OSError):
                if fd not in self.exit_channels.values():
                    os.close(fd)

    def _end(self) -> NoReturn:
        # Each child leads a group with the processes that the task has started.
        for pid in self.exit_channels:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(0)

    def _notice_ends(self) -> None:
        # Several signals may have become one: empty the wakeup socket first, then ask for each child.
        with contextlib.suppress(BlockingIOError):
            while self.wakeup.recv(4096):
                pass
        for pid in list(self.unwatched):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.unwatched.discard(pid)
        for pid in list(self.living):
            # WNOWAIT leaves a zombie, which keeps the pid.
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                continue
            self.living.discard(pid)
            code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            with contextlib.suppress(OSError):
                os.write(self.exit_channels[pid], f"{code}\n".encode())

    def _release(self, pid: int) -> None:
        """Reap a child: the worker has closed its end of the exit channel. Kill it first if it hasn't ended."""
        channel = self.exit_channels.pop(pid)
        self.selector.unregister(channel)
        os.close(channel)
        if pid in self.living:
            self.living.discard(pid)
            self.unwatched.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        else:
            os.waitpid(pid, 0)

    def _fork(self, death_signal: signal.Signals) -> int:
        """Fork, and return the child's pid; in the child, close everything that belongs to this zygote and return 0.

        The child inherits the exit channels of its siblings. It has to close them: the supervisor of a sibling whose
        zygote dies would otherwise not see the end of the channel.
        """
        pid = os.fork()
        if pid:
            return pid
        die_with_parent(death_signal)
        signal.set_wakeup_fd(-1)
        for sig in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, signal.SIG_DFL)
        for channel in self.exit_channels.values():
            os.close(channel)
        for mine in (self.selector, self.control, self.wakeup, self.wakeup_write):
            mine.close()
        return 0

    def _spawn(self, message: SpawnMessage, fds: list[int]) -> None:
        requests, stdout, stderr, logs, channel = fds
        pid = self._fork(signal.SIGKILL)
        if pid:
            # Parent and child both set the group: the worker may signal it as soon as it has read the pid, and the
            # child may have started processes before that.
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
            with contextlib.suppress(OSError):
                os.write(channel, f"{pid}\n".encode())
            self.exit_channels[pid] = channel
            self.living.add(pid)
            # Readable when the worker has closed its end, which sends nothing.
            self.selector.register(channel, selectors.EVENT_READ, partial(self._release, pid))
            return
        try:
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
            # A received descriptor would otherwise be inherited by programs that the task starts.
            os.set_inheritable(channel, False)
            os.environ.update(message["env"])
            reseed()
            report_imports(channel)
            targets.run_target(message["target"], (requests, stdout, stderr, logs))
        finally:
            # The child must never return into the zygote's loop. 124 is what Airflow's supervisor uses for this.
            os._exit(124)

    def _load(self, message: LoadMessage, fds: list[int]) -> None:
        control, result, names = fds
        # SIGTERM, not SIGKILL, when the root dies: the package zygote's handler kills its tasks' groups first.
        pid = self._fork(signal.SIGTERM)
        if pid:
            self.unwatched.add(pid)
            return
        try:
            os.environ.update(message["env"])
            with open(names, encoding="utf-8") as file:
                modules = file.read().split()
            _become_package_zygote(modules, socket.socket(fileno=control), result)
        finally:
            os._exit(1)


def _become_package_zygote(modules: list[str], control: socket.socket, result: int) -> NoReturn:
    before = ProcessState.read()
    with recording_seeds():
        for name in modules:
            # A module that can't be imported alone is imported by each try, which also reports the error.
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    find_numpy_generators()
    obstacle = find_obstacle(before)
    # Closing the pipe is the end of the report; a pipe that closes without one means that this process has died.
    with open(result, "w", encoding="utf-8") as pipe:
        pipe.write(f"{obstacle}\n")
    if obstacle:
        os._exit(0)
    # Keeps the garbage collector from writing to pages that the forks share.
    gc.collect()
    gc.freeze()
    Zygote(control).run()


def main(control: socket.socket) -> NoReturn:
    """Serve as the root zygote. The calling process has one thread and has imported Airflow."""
    die_with_parent(signal.SIGTERM)
    Zygote(control).run()
