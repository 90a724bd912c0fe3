"""Finds out whether a process can be forked after it has imported modules, and what a fork has to make new.

A zygote imports the installed packages that a DAG file uses. Most packages do nothing but define things when they are
imported. Some start threads, open connections or change the process in another way that a fork copies or breaks: then
:func:`find_obstacle` names the reason, and each try imports the packages itself. Random number generators are copied,
too, and every try would draw the same numbers: :func:`reseed` makes new ones in the child.

Everything here runs in zygotes and their children, on Linux.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import signal
import socket
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# jemalloc stops this thread in the child and releases its locks, with `pthread_atfork`.
_SAFE_THREADS = frozenset({"jemalloc_bg_thd"})
_SAFE_FILES = frozenset({"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"})

# Generators whose last seed came from the operating system. Filled while modules are imported, used after the fork.
_unseeded: weakref.WeakSet[random.Random] = weakref.WeakSet()
_numpy_generators: list[Any] = []


@dataclass(frozen=True)
class ProcessState:
    """The parts of a process that a fork copies, or that an import may change for the rest of the process."""

    files: frozenset[str]
    """Open files, sockets and pipes."""
    children: frozenset[str]
    """The ids of child processes."""
    signal_handlers: tuple[Any, ...]
    timers: tuple[bool, ...]
    socket_timeout: float | None
    root_logger: tuple[Any, ...]

    @classmethod
    def read(cls) -> ProcessState:
        """Return the state of this process."""
        root = logging.getLogger()
        return cls(
            files=_open_files(),
            children=_children(),
            signal_handlers=tuple(signal.getsignal(number) for number in sorted(signal.valid_signals())),
            timers=tuple(
                any(signal.getitimer(timer))
                for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
            ),
            socket_timeout=socket.getdefaulttimeout(),
            root_logger=(root.level, *root.handlers, *root.filters, logging.root.manager.disable),
        )


def find_obstacle(before: ProcessState) -> str:
    """
    Return the reason why this process must not be forked; an empty string if it can be.

    Parameters
    ----------
    before
        The state of this process before it imported the modules.

    Examples
    --------
    >>> find_obstacle(ProcessState.read())
    ''
    """
    now = ProcessState.read()
    if threading.active_count() > 1:
        names = sorted(t.name for t in threading.enumerate() if t is not threading.main_thread())
        return f"starts threads: {', '.join(names)}"
    if left := _native_threads_after_fork():
        return f"starts native threads: {', '.join(left)}"
    if opened := now.files - before.files:
        return f"keeps files or connections open: {', '.join(sorted(opened))}"
    if now.children - before.children:
        return "starts processes"
    if now.signal_handlers != before.signal_handlers:
        return "installs signal handlers"
    if now.timers != before.timers:
        return "starts a timer of the process"
    if now.socket_timeout != before.socket_timeout:
        return "sets a timeout for all sockets"
    if now.root_logger != before.root_logger:
        return "changes the root logger"
    return ""


def _open_files() -> frozenset[str]:
    files = set()
    for fd in os.listdir("/proc/self/fd"):
        # The descriptor with which `listdir` read the folder is closed by now.
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            if target not in _SAFE_FILES:
                files.add(target)
    return frozenset(files)


def _children() -> frozenset[str]:
    found: set[str] = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:
            found.update(file.read().split())
    return frozenset(found)


def _native_threads() -> list[str]:
    names = []
    for thread in os.listdir("/proc/self/task"):
        if int(thread) == os.getpid():
            continue
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/comm") as file:
            names.append(file.read().strip())
    return [name for name in names if name not in _SAFE_THREADS]


def _native_threads_after_fork() -> list[str]:
    """Return the names of the native threads that remain after this process has forked once.

    A library that prepares for forks ends its threads before each one, with ``pthread_atfork``, as OpenBLAS does for
    NumPy. A thread that goes on may hold a lock at any moment, which its copy in the child would never release.
    """
    if not _native_threads():
        return []
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork with native threads, which is what is tried here: the child does nothing.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return _native_threads()


@contextlib.contextmanager
def recording_seeds() -> Iterator[None]:
    """Remember which random number generators are created inside the block with a seed of the operating system.

    Those with a seed of their own draw the same numbers in each process, forked or not.
    """
    original = random.Random.seed

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        original(self, a, version)
        (_unseeded.add if a is None else _unseeded.discard)(self)

    random.Random.seed = seed  # type: ignore[method-assign]
    try:
        yield
    finally:
        random.Random.seed = original  # type: ignore[method-assign]


def find_numpy_generators() -> None:
    """Remember NumPy's generators with a seed of the operating system. A zygote calls it after its imports.

    It has to come before `gc.freeze`, which hides objects from `gc.get_objects`.
    """
    if "numpy.random" not in sys.modules:
        return
    kind = sys.modules["numpy.random"].BitGenerator
    for found in gc.get_objects():
        # A seed of the operating system has 128 random bits. After `numpy.random.seed(7)` there is no sequence.
        if isinstance(found, kind) and getattr(found.seed_seq, "entropy", 0).bit_length() > 64:
            _numpy_generators.append(found)


def reseed() -> None:
    """Give every random number generator of this forked process that had no seed of its own a new one."""
    # Python itself reseeds the generator behind the functions of `random`.
    for generator in list(_unseeded):
        generator.seed()
    for generator in _numpy_generators:
        generator.state = type(generator)().state
