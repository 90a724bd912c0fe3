"""The zygotes: processes that have a DAG's imports loaded and are forked for each try.

The worker forks the root zygote, which has Airflow imported. The root zygote forks one file zygote per DAG file; that
one parses the file once, and each try of its tasks runs in a fork of it. Every zygote has a single thread, so that a
fork is safe, and none of them uses the database. A zygote is the parent of its children: it reaps them, and kills them
when the worker has died.

The worker controls a zygote over a ``SOCK_SEQPACKET`` socket, which keeps message boundaries. A message carries the
child's ends of the pipes as file descriptors. Messages are JSON objects with an ``op``:

``load``
    (root) Fork a file zygote for ``path``. Descriptors: its control socket, a pipe for the result of parsing.
``spawn``
    Fork a child that runs ``target`` (a key of ``targets.TARGETS``). Descriptors: requests, stdout, stderr, logs,
    exit channel. The zygote writes ``<pid>\\n`` and later ``<wait status>\\n`` to the exit channel.
``retire``
    End as soon as no child is left. A control socket that closes without this message means that the worker has died:
    the zygote kills its children and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
from typing import Literal, NoReturn, TypedDict

from temporal_airflow_nb.tasks import targets
from temporal_airflow_nb.tasks.parsing import ParsedFile, parse

# Bytes of one message, which has the environment of the child in it.
MAX_MESSAGE = 64 * 1024
_PR_SET_PDEATHSIG = 1


class SpawnMessage(TypedDict):
    """Asks a zygote to fork a child."""

    op: Literal["spawn"]
    target: str
    env: dict[str, str]


class LoadMessage(TypedDict):
    """Asks the root zygote to fork a file zygote."""

    op: Literal["load"]
    path: str
    bundle_name: str
    bundle_path: str
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
    parsed
        The parsed DAG file; None in the root zygote.
    """

    def __init__(self, control: socket.socket, parsed: ParsedFile | None = None) -> None:
        self.control = control
        self.parsed = parsed
        # Descriptor of the exit channel by the pid of each living child. The root's file zygotes aren't in it: they
        # have no exit channel, and end with SIGTERM when the root dies.
        self.exit_channels: dict[int, int] = {}
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
        self.selector.register(self.wakeup, selectors.EVENT_READ, self._reap)
        while not (self.retired and not self.exit_channels):
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

    def _reap(self) -> None:
        # Several signals may have become one: empty the wakeup socket first, then reap until no dead child is left.
        with contextlib.suppress(BlockingIOError):
            while self.wakeup.recv(4096):
                pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            channel = self.exit_channels.pop(pid, None)
            if channel is not None:
                with contextlib.suppress(OSError):
                    os.write(channel, f"{status}\n".encode())
                os.close(channel)

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
            return
        try:
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
            os.close(channel)
            os.environ.update(message["env"])
            targets.run_target(message["target"], (requests, stdout, stderr, logs), self.parsed)
        finally:
            # The child must never return into the zygote's loop. 124 is what Airflow's supervisor uses for this.
            os._exit(124)

    def _load(self, message: LoadMessage, fds: list[int]) -> None:
        control, result = fds
        # SIGTERM, not SIGKILL, when the root dies: the file zygote's handler kills its tasks' groups first.
        pid = self._fork(signal.SIGTERM)
        if pid:
            return
        try:
            os.environ.update(message["env"])
            self._become_file_zygote(message, socket.socket(fileno=control), result)
        finally:
            os._exit(1)

    def _become_file_zygote(self, message: LoadMessage, control: socket.socket, result: int) -> NoReturn:
        parsed = parse(message["path"], message["bundle_name"], message["bundle_path"])
        # A fork copies only the thread that forks: locks of the others would stay locked in each task.
        if threading.active_count() > 1:
            parsed.bag, parsed.reason = None, "starts threads at the top level"
        # Closing the pipe is the end of the report; a pipe that closes without one means that this process has died.
        with open(result, "wb") as pipe:
            pipe.write(json.dumps(parsed.report()).encode())
        if parsed.bag is None:
            os._exit(0)
        # Keeps the garbage collector from writing to pages that the forks share.
        gc.collect()
        gc.freeze()
        Zygote(control, parsed).run()


def main(control: socket.socket) -> NoReturn:
    """Serve as the root zygote. The calling process has one thread and has imported Airflow."""
    die_with_parent(signal.SIGTERM)
    Zygote(control).run()
