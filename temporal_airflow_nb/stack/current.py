"""The stack that this process uses: a connected cluster, else the embedded stack of a state folder.

Used in the user's process, a kernel or a script, by the public functions, the magics and the completion, which call it
from several threads. The stacks are kept per process. A forked child inherits the tables, but never ends a stack: it
checks its pid first.
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
# Not protected: threads read and assign it in one step.
_in_use: Stack | None = None
# The process that owns the stacks. A fork without exec has the same value here, and another pid.
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
    """Use a stack from now on; with None, use the embedded stack of the state folder again."""
    global _in_use
    _in_use = stack


def is_connected() -> bool:
    """Return whether a stack was passed to :func:`use` and is still in use."""
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
        # After a restart of the kernel, this is where the new kernel takes over the stack that the former one started.
        stack.join()
    return stack.client


def start(stack: Stack) -> None:
    """Start a stack; one that a notebook's kernel starts outlives a restart of the kernel."""
    from temporal_airflow_nb.stack.local import LocalStack

    if isinstance(stack, LocalStack):
        stack.linger = _linger_seconds()
    with interruptible("The stack wasn't started."):
        stack.start()


def embedded(home: str | os.PathLike[str] | None = None) -> LocalStack:
    """Return the embedded stack of a state folder, always the same object for the same folder."""
    from temporal_airflow_nb.stack.local import LocalStack

    path = home_path(home or _configured_home())
    with _lock:
        if path not in _embedded:
            _embedded[path] = LocalStack(path)
            # Registered again for each stack; `leave_stacks` removes all of these entries at once.
            atexit.register(_at_exit)
        return _embedded[path]


def leave_stacks(*, restarting: bool = False) -> None:
    """Leave every stack; stacks that this process started end, unless they are shared.

    Parameters
    ----------
    restarting
        Whether another process, a restarted kernel, follows: its stacks then wait for it.
    """
    global _in_use
    # In a forked child, the stacks belong to its parent.
    if os.getpid() != _process:
        return
    atexit.unregister(_at_exit)
    used, _in_use = _in_use, None
    with _lock:
        embedded_ones = list(_embedded.values())
        _embedded.clear()
    # A stack that can't be ended here ends anyway: its manager notices that this process has closed its pipe or died.
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
    # From the loaded modules: a process that hasn't imported IPython is no kernel, and needn't import it.
    ipython = sys.modules.get("IPython")
    return getattr(ipython.get_ipython() if ipython else None, "kernel", None)


def _linger_seconds() -> float:
    if _kernel() is None:
        return 0.0
    from temporal_airflow_nb.config import settings

    return float(settings.get("linger"))


def _kernel_restarts() -> bool:
    """Return whether this process is a kernel that restarts, or that ends without a request to end."""
    kernel = _kernel()
    if kernel is None:
        return False
    # ipykernel keeps the request that ends it in this private attribute. No public one distinguishes restarts.
    message = getattr(kernel, "_shutdown_message", None)
    return message is None or bool(message["content"].get("restart"))
