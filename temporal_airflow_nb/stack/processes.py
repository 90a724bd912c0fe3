"""Starting processes so that they can all be found and ended again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

STACK_ID_VARIABLE = "TEMPORAL_AIRFLOW_STACK"
"""Variable that every process of a stack carries; its value is the stack's id."""

MAX_LOG_BYTES = 10_000_000

PR_SET_PDEATHSIG = 1


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package, the working directory not on ``sys.path``.

    A user's ``select.py`` beside the notebook would otherwise be imported in place of the real one.
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
    """Start a process in a session and group of its own, printing to ``log``.

    ``die_with_parent`` has the Linux kernel kill it when the thread that calls this ends: call it from the
    main thread of a process with no other threads. Elsewhere the manager's guard does it.
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
            start_new_session=True,
            pass_fds=pass_fds,
            umask=umask,
            preexec_fn=_death_signal() if die_with_parent and sys.platform == "linux" else None,
        )


def _rotate(log: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_suffix(".old.log"))


def _death_signal() -> Callable[[], None]:
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def identify(pid: int) -> dict[str, Any]:
    """Return what tells a process from a later one with the same pid."""
    return {"pid": pid, "create_time": psutil.Process(pid).create_time()}


def is_alive(who: Mapping[str, Any]) -> bool:
    """Whether the process that :func:`identify` described still runs."""
    try:
        process = psutil.Process(who["pid"])
        # The clock may have been set since; no pid comes round again within two seconds.
        return (
            process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - who["create_time"]) < 2
        )
    except (psutil.NoSuchProcess, KeyError, TypeError):
        return False


def signal_group(pid: int, number: int) -> None:
    """Signal the group that ``pid`` leads; nothing happens where it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def process_groups(pid: int) -> set[int]:
    """Return the groups of a process and of all that descend from it."""
    found = set()
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(OSError):
                found.add(os.getpgid(process.pid))
    return found


def kill_group(process: subprocess.Popen[bytes], *, grace: float) -> None:
    """Kill a process of :func:`spawn` and its group, unless the process ends by itself in ``grace`` seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    signal_group(process.pid, signal.SIGKILL)
    process.wait()


def find_all(stack_id: str, *, spare: Collection[int] = ()) -> Iterator[psutil.Process]:
    """Yield this user's processes that carry the stack_id, all users' for root, except this and the groups ``spare``."""
    uid = os.geteuid()
    for process in psutil.process_iter():
        try:
            # PostgreSQL, started by root, runs as somebody else.
            if process.pid == os.getpid() or uid not in (0, process.uids().effective):
                continue
            if process.environ().get(STACK_ID_VARIABLE) == stack_id and os.getpgid(process.pid) not in spare:
                yield process
        except (psutil.Error, OSError):
            continue


def kill_all(stack_id: str, *, spare: Collection[int] = (), timeout: float = 5.0) -> list[int]:
    """Kill what :func:`find_all` finds until there is nothing more; returns the pids."""
    killed: list[int] = []
    deadline = time.monotonic() + timeout
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
