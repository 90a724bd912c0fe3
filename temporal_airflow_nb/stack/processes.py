"""Starts processes so that all of them can be found and ended again.

Every process of a stack inherits the environment variable :data:`STACK_ID_VARIABLE`, and each service leads a session
and process group. A signal to the group reaches most processes of a service; those that have left the group are found
by the variable. The stack manager, the processes that start or stop it, and its watchdog use this module.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import psutil

STACK_ID_VARIABLE = "TEMPORAL_AIRFLOW_STACK"
"""Name of the environment variable that every process of a stack has; its value is the stack's id."""

MAX_LOG_BYTES = 10_000_000

PR_SET_PDEATHSIG = 1


class ProcessIdentity(TypedDict, total=False):
    """A process, distinguished from a later one with the same pid."""

    pid: int
    create_time: float
    """Seconds since the epoch."""


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module without the working directory on ``sys.path``.

    With that directory, a user's ``select.py`` beside the notebook would be imported instead of Python's.
    """
    if sys.version_info >= (3, 11):
        return [sys.executable, "-P", "-m", module, *arguments]
    bootstrap = (
        f"import sys; del sys.path[0]; import runpy; runpy.run_module({module!r}, None, '__main__', True)"
    )
    return [sys.executable, "-c", bootstrap, *arguments]


def python_path(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the ``PYTHONPATH`` under which another interpreter finds this package, if it isn't installed."""
    root = Path(__file__).resolve().parents[2]
    if root.name in ("site-packages", "dist-packages"):
        return {}
    inherited = environ.get("PYTHONPATH", "").split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join([p for p in inherited if p and p != str(root)] + [str(root)])}


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    umask: int = -1,
    die_with_parent: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a process as the leader of a new session and process group.

    Its output is appended to ``log``.

    Parameters
    ----------
    die_with_parent
        Whether the Linux kernel kills the process when the calling thread ends: pass it only in the main thread of a
        process without other threads. On other systems the manager's watchdog kills the process.
    """
    _rotate(log)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(env),
            # A Ctrl-C in the terminal reaches the terminal's process group only, and so none of the services.
            start_new_session=True,
            pass_fds=pass_fds,
            umask=umask,
            # Python code between fork and exec can deadlock if another thread held a lock at the fork. The manager,
            # which alone asks for this, has one thread.
            preexec_fn=_death_signal() if die_with_parent and sys.platform == "linux" else None,
        )


def _rotate(log: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_suffix(".old.log"))


def _death_signal() -> Callable[[], None]:
    import ctypes

    # Looked up before the fork: between fork and exec the child should do as little as possible.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def in_child() -> None:
        # The parent may have died between the fork and `prctl`. Then the kernel sends nothing any more.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def identify(pid: int) -> ProcessIdentity:
    """Return the pid and start time of a process, which together identify it."""
    return {"pid": pid, "create_time": psutil.Process(pid).create_time()}


def is_alive(known: ProcessIdentity) -> bool:
    """Return whether the process that :func:`identify` described still runs."""
    try:
        process = psutil.Process(known["pid"])
        # Not compared exactly: a change of the system's clock shifts the start time. No system reuses a pid within two
        # seconds.
        return (
            process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - known["create_time"]) < 2
        )
    except (psutil.NoSuchProcess, KeyError, TypeError):
        return False


def signal_group(pid: int, number: int) -> None:
    """Send a signal to the process group that ``pid`` leads; do nothing if the group is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def process_groups(pid: int) -> set[int]:
    """Return the ids of the process groups of a process and its descendants."""
    found = set()
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(OSError):
                found.add(os.getpgid(process.pid))
    return found


def kill_group(process: subprocess.Popen[bytes], *, grace: float) -> None:
    """Wait up to ``grace`` seconds for a process to end, then kill the rest of its group."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    # In any case: children may outlive the leader of their group.
    signal_group(process.pid, signal.SIGKILL)
    process.wait()


def find_all(stack_id: str, *, spare: Collection[int] = ()) -> Iterator[psutil.Process]:
    """Yield the processes of a stack, except the calling one and the process groups ``spare``.

    Only processes of this user are searched; root searches those of every user. The system shows the environment that a
    process had at its last exec, and for a fork that of its parent: changes of ``os.environ`` don't hide a process.
    """
    uid = os.geteuid()
    for process in psutil.process_iter():
        try:
            # A stack that root started runs PostgreSQL as another user.
            if process.pid == os.getpid() or uid not in (0, process.uids().effective):
                continue
            if process.environ().get(STACK_ID_VARIABLE) == stack_id and os.getpgid(process.pid) not in spare:
                yield process
        # The process has ended meanwhile, or doesn't show its environment to this user.
        except (psutil.Error, OSError):
            continue


def kill_all(stack_id: str, *, spare: Collection[int] = (), timeout: float = 5.0) -> list[int]:
    """Kill all processes that :func:`find_all` yields; give up after ``timeout`` seconds. Return their pids."""
    killed: list[int] = []
    deadline = time.monotonic() + timeout
    # Repeated, because a process may fork between the search and its death.
    while found := list(find_all(stack_id, spare=spare)):
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
                killed.append(process.pid)
        while any(map(_runs, found)) and time.monotonic() < deadline:
            time.sleep(0.01)
        if time.monotonic() > deadline:
            break
    return killed


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
