"""Measures the cost of process families, and ends them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

import psutil


def family(roots: Iterable[int]) -> list[psutil.Process]:
    """Return the processes with these ids, their descendants, and all other processes of their sessions."""
    roots = set(roots)
    found: dict[int, psutil.Process] = {}
    for pid in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            found[pid] = root
            found.update({child.pid: child for child in root.children(recursive=True)})
    sessions = {pid for pid in roots if _session(pid) in (pid, None)}
    for process in psutil.process_iter():
        if process.pid not in found and _session(process.pid) in sessions:
            found[process.pid] = process
    return list(found.values())


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def end_all(roots: Iterable[int], *, timeout: float = 15) -> None:
    """Ask the roots to stop; kill the processes of their families that are left after ``timeout`` seconds."""
    roots = list(roots)
    members = family(roots)
    for pid in roots:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(members, timeout=timeout)
    for process in {*alive, *family(roots)}:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return the user and system time of these processes and of the children that they have reaped."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_bytes(processes: Iterable[psutil.Process]) -> int:
    """Return the total proportional set size of these processes (resident size if PSS isn't available)."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.rss)
    return total
