"""A process that outlives the manager just long enough to end what a killed manager leaves."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

from temporal_airflow_nb.stack import processes


def start(stack_id: str, *, close: Iterable[int]) -> int:
    """Fork the guard and return its pid. The caller has no threads.

    The guard waits for the end of a pipe that this process alone holds, then kills whatever carries the
    stack_id. ``close`` are descriptors that it must not keep open, such as the manager's lock.
    """
    lifeline, kept = os.pipe()
    pid = os.fork()
    if pid:
        os.close(lifeline)
        return pid
    try:
        os.setsid()
        os.close(kept)
        for fd in close:
            with contextlib.suppress(OSError):
                os.close(fd)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.read(lifeline, 1)
        processes.kill_all(stack_id, timeout=10.0)
    finally:
        os._exit(0)
