"""The stack that this process uses: a cluster that it is connected to, else the embedded stack of the state folder.

The stacks are kept per process. A forked child inherits the tables, but never ends a stack: it checks its pid first.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.config.environment import home_path
from temporal_airflow_nb.errors import TemporalAirflowError, interruptible

if TYPE_CHECKING:
    from temporal_airflow_nb.client.protocol import StackClient
    from temporal_airflow_nb.stack.base import Stack
    from temporal_airflow_nb.stack.local import LocalStack

# Protects `_embedded`: coroutine functions run in threads, and must get the same object for the same folder.
_lock = threading.RLock()
_embedded: dict[Path, LocalStack] = {}
_in_use: Stack | None = None
_process = os.getpid()


def current(home: str | os.PathLike[str] | None = None) -> Stack:
    """Return the stack that functions and magics use, started or not.

    Parameters
    ----------
    home
        A state folder. If given, its embedded stack is returned, whichever stack is in use.

    Returns
    -------
    Stack
        The stack that was passed to :func:`use`; else the embedded stack of the state folder.
    """
    if home is None and _in_use is not None:
        return _in_use
    return embedded(home)


def use(stack: Stack | None) -> None:
    """Use a stack from now on. None goes back to the embedded stack of the state folder."""
    global _in_use
    _in_use = stack


def is_connected() -> bool:
    """Return whether a stack other than the embedded one of the state folder is in use."""
    return _in_use is not None


def client(home: str | os.PathLike[str] | None = None) -> StackClient:
    """Return the client of the stack in use.

    Raises
    ------
    ServiceUnavailableError
        The stack isn't running.
    """
    from temporal_airflow_nb.stack.local import LocalStack

    stack = current(home)
    if isinstance(stack, LocalStack):
        stack.linger = _linger_seconds()
        stack.join()
    return stack.client


def start(stack: Stack) -> None:
    """Start a stack. A stack that a notebook's kernel starts outlives a restart of the kernel."""
    from temporal_airflow_nb.stack.local import LocalStack

    if isinstance(stack, LocalStack):
        stack.linger = _linger_seconds()
    with interruptible("The stack wasn't started."):
        stack.start()


def embedded(home: str | os.PathLike[str] | None = None) -> LocalStack:
    """Return the embedded stack of a state folder, started or not: always the same object for the same folder."""
    from temporal_airflow_nb.stack.local import LocalStack

    path = home_path(home or _configured_home())
    with _lock:
        if path not in _embedded:
            _embedded[path] = LocalStack(path)
            atexit.register(_at_exit)
        return _embedded[path]


def leave_stacks(*, restarting: bool = False) -> None:
    """Leave every stack. Stacks that this process started end, unless they are shared; others go on.

    Parameters
    ----------
    restarting
        Whether another process, a restarted kernel, follows: its stacks then wait for it.
    """
    global _in_use
    # In a forked child: the stacks belong to its parent.
    if os.getpid() != _process:
        return
    atexit.unregister(_at_exit)
    used, _in_use = _in_use, None
    with _lock:
        embedded_ones = list(_embedded.values())
        _embedded.clear()
    with contextlib.suppress(TemporalAirflowError):
        if used is not None and used not in embedded_ones:
            used.stop()
    for stack in embedded_ones if not restarting else ():
        with contextlib.suppress(TemporalAirflowError):
            stack.leave()


def _configured_home() -> str | None:
    """Return the setting ``home``, if the settings are loaded: importing them would load IPython's traitlets."""
    settings = sys.modules.get("temporal_airflow_nb.config.settings")
    return settings.get("home") if settings is not None else None


def _at_exit() -> None:
    leave_stacks(restarting=_kernel_restarts())


def _kernel() -> Any:
    """Return the notebook kernel that runs in this process, or None."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython.get_ipython() if ipython else None, "kernel", None)


def _linger_seconds() -> float:
    if _kernel() is None:
        return 0.0
    from temporal_airflow_nb.config import settings

    return float(settings.get("linger"))


def _kernel_restarts() -> bool:
    """Return whether this process is a kernel that will be started again, or that ends without a request to end."""
    kernel = _kernel()
    if kernel is None:
        return False
    # ipykernel keeps the request that ends it in this private attribute. No public one distinguishes restarts.
    message = getattr(kernel, "_shutdown_message", None)
    return message is None or bool(message["content"].get("restart"))
