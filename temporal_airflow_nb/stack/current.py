"""Which stack this process works with: the cluster it is connected to, else the embedded one of the state folder."""

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

_lock = threading.RLock()
_embedded: dict[Path, LocalStack] = {}
_used: Stack | None = None
_process = os.getpid()


def current(home: str | os.PathLike[str] | None = None) -> Stack:
    """Return the stack that functions and magics work with, started or not.

    Parameters
    ----------
    home
        A state folder: its embedded stack is meant, whatever else is in use.

    Returns
    -------
    Stack
        The connected one, where :func:`use` has been told of one; else the embedded one of the state folder.
    """
    if home is None and _used is not None:
        return _used
    return embedded(home)


def use(stack: Stack | None) -> None:
    """Work with a stack from now on; None for the embedded one of the state folder again."""
    global _used
    _used = stack


def connected() -> bool:
    """Whether another stack than the embedded one of the state folder is in use."""
    return _used is not None


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
        stack.linger = _linger()
        stack.join()
    return stack.client


def start(stack: Stack) -> None:
    """Start a stack. One that a notebook's kernel starts waits for that kernel to come back after a restart."""
    from temporal_airflow_nb.stack.local import LocalStack

    if isinstance(stack, LocalStack):
        stack.linger = _linger()
    with interruptible("The stack wasn't started."):
        stack.start()


def embedded(home: str | os.PathLike[str] | None = None) -> LocalStack:
    """Return the embedded stack of a state folder, always the same object, started or not."""
    from temporal_airflow_nb.stack.local import LocalStack

    path = home_path(home or _configured_home())
    with _lock:
        if path not in _embedded:
            _embedded[path] = LocalStack(path)
            atexit.register(_at_exit)
        return _embedded[path]


def end_owned(*, restarting: bool = False) -> None:
    """Leave every stack: those that this process started end, unless they are shared; those that it found go on.

    Parameters
    ----------
    restarting
        Whether this process comes again: what it started then waits for it.
    """
    global _used
    if os.getpid() != _process:
        return
    atexit.unregister(_at_exit)
    used, _used = _used, None
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
    """Return what ``%config TemporalDag.home`` says, where the magics are loaded."""
    settings = sys.modules.get("temporal_airflow_nb.config.settings")
    return settings.get("home") if settings is not None else None


def _at_exit() -> None:
    end_owned(restarting=_kernel_restarts())


def _kernel() -> Any:
    """Return the notebook's kernel that this process is, if it is one."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython.get_ipython() if ipython else None, "kernel", None)


def _linger() -> float:
    if _kernel() is None:
        return 0.0
    from temporal_airflow_nb.config import settings

    return settings.get("linger")


def _kernel_restarts() -> bool:
    """Whether this process is a kernel that isn't shut down for good, as far as it was told."""
    kernel = _kernel()
    if kernel is None:
        return False
    message = getattr(kernel, "_shutdown_message", None)
    return message is None or bool(message["content"].get("restart"))
