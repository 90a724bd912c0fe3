"""The processes that tasks are forked from.

The root zygote has Airflow imported. For each DAG file it forks a file zygote, which parses the file once; task
processes are forks of that. All of them have a single thread, so that a fork is safe, and none of them touches the
database. The worker steers a zygote over a socket that keeps message boundaries; the ends of a child's pipes travel
on it as file descriptors.

Messages to a zygote are JSON objects with an ``op``:

``load``
    (root) Fork a file zygote for ``path``. Descriptors: its control socket, a pipe for the result of parsing.
``spawn``
    Fork a child that runs ``target`` (a key of ``targets.TARGETS``). Descriptors: requests, stdout, stderr, logs,
    exit channel. ``<pid>\\n`` and later ``<wait status>\\n`` are written to the exit channel.
``retire``
    End as soon as no child is left. A control socket that closes without it means that the worker is gone:
    children are killed.
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
from typing import Any, NoReturn

from temporal_airflow_nb.tasks import targets
from temporal_airflow_nb.tasks.parsing import ParsedFile, parse

MAX_MESSAGE = 64 * 1024
_PR_SET_PDEATHSIG = 1


def die_with_parent(sig: signal.Signals) -> None:
    """Ask Linux to send ``sig`` to this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, sig)


class Zygote:
    """The loop of one zygote process; ``parsed`` is None in the root."""

    def __init__(self, control: socket.socket, parsed: ParsedFile | None = None) -> None:
        self.control = control
        self.parsed = parsed
        self.exit_channels: dict[int, int] = {}
        self.retired = False
        self.selector = selectors.DefaultSelector()
        self.wakeup, wakeup_write = socket.socketpair()
        wakeup_write.setblocking(False)
        self.wakeup.setblocking(False)
        self.wakeup_write = wakeup_write
        signal.set_wakeup_fd(wakeup_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(self) -> NoReturn:
        """Serve until retired."""
        self.selector.register(self.control, selectors.EVENT_READ, self._read_message)
        self.selector.register(self.wakeup, selectors.EVENT_READ, self._reap)
        while not (self.retired and not self.exit_channels):
            for key, _ in self.selector.select():
                key.data()
        os._exit(0)

    def _read_message(self) -> None:
        data, fds, _, _ = socket.recv_fds(self.control, MAX_MESSAGE, 8)
        if not data:
            self._end()
        message = json.loads(data)
        match message["op"]:
            case "spawn":
                self._spawn(message, fds)
            case "load":
                self._load(message, fds)
            case "retire":
                # The worker forgets a zygote that it retires, and with it the other end of this socket.
                self.retired = True
                self.selector.unregister(self.control)
        for fd in fds:
            with contextlib.suppress(OSError):
                if fd not in self.exit_channels.values():
                    os.close(fd)

    def _end(self) -> NoReturn:
        for pid in self.exit_channels:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(0)

    def _reap(self) -> None:
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
        """Fork; in the child give up everything that belongs to this zygote."""
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

    def _spawn(self, message: dict[str, Any], fds: list[int]) -> None:
        requests, stdout, stderr, logs, channel = fds
        pid = self._fork(signal.SIGKILL)
        if pid:
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
            os.environ.update(message.get("env", {}))
            targets.run_target(message["target"], (requests, stdout, stderr, logs), self.parsed)
        finally:
            os._exit(124)

    def _load(self, message: dict[str, Any], fds: list[int]) -> None:
        control, result = fds
        pid = self._fork(signal.SIGTERM)
        if pid:
            return
        try:
            os.environ.update(message.get("env", {}))
            self._become_file_zygote(message, socket.socket(fileno=control), result)
        finally:
            os._exit(1)

    def _become_file_zygote(self, message: dict[str, Any], control: socket.socket, result: int) -> NoReturn:
        parsed = parse(message["path"], message["bundle_name"], message["bundle_path"])
        if threading.active_count() > 1:
            parsed.bag, parsed.reason = None, "starts threads at the top level"
        with open(result, "wb") as pipe:
            pipe.write(json.dumps(parsed.report()).encode())
        if parsed.bag is None:
            os._exit(0)
        gc.collect()
        gc.freeze()
        Zygote(control, parsed).run()


def main(control: socket.socket) -> NoReturn:
    """Serve as the root zygote; called in a fork of a process that has one thread and Airflow imported."""
    die_with_parent(signal.SIGTERM)
    Zygote(control).run()
