"""A process that ends a stack's processes when the stack manager was killed.

The manager forks it before it starts services. It blocks on a pipe, and uses no CPU while the manager lives.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

from temporal_airflow_nb.stack import processes


def start(stack_id: str, *, close: Iterable[int]) -> int:
    """Fork the watchdog and return its pid. The calling process must have one thread.

    The watchdog waits until the calling process has ended, then kills every process of the stack.

    Parameters
    ----------
    stack_id
        The stack's id, which its processes have in their environment.
    close
        Descriptors of the caller that the watchdog must not keep open: an open copy of the manager's lock, for one,
        would make a dead manager look alive.
    """
    # Only the manager has the write end, since descriptors of Python aren't inherited over exec. Its end, however the
    # manager dies, ends the read below. The descriptor in `kept` is never closed in the manager.
    lifeline, kept = os.pipe()
    pid = os.fork()
    if pid:
        os.close(lifeline)
        return pid
    try:
        # A session of its own: a Ctrl-C in the terminal, or a signal to the manager's group, doesn't reach it.
        os.setsid()
        os.close(kept)
        for fd in close:
            with contextlib.suppress(OSError):
                os.close(fd)
        # The manager's signal handlers aren't set yet. SIGTERM, say at a shutdown of the machine, must not end the
        # watchdog before the services are killed.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.read(lifeline, 1)
        processes.kill_all(stack_id, timeout=10.0)
    # Also after an error: this process must never return into the manager's code, of which it has a copy.
    finally:
        os._exit(0)
