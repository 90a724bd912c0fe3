"""The embedded stacks of this kernel, one for each state folder, ended when the kernel ends."""

from __future__ import annotations

import atexit
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_airflow_nb.config import home_path
from temporal_airflow_nb.errors import TemporalAirflowError

if TYPE_CHECKING:
    from temporal_airflow_nb.stack.local import LocalStack

_stacks: dict[Path, LocalStack] = {}
_kernel = os.getpid()


def stack_of(home: str | None) -> LocalStack:
    """Return the stack of a state folder, started or not."""
    from temporal_airflow_nb.stack.local import LocalStack

    path = home_path(home)
    if path not in _stacks:
        _stacks[path] = LocalStack(path)
        atexit.register(end_owned)
    return _stacks[path]


def end(home: str | None) -> bool:
    """End the stack of a state folder; returns whether one ran."""
    stack = stack_of(home)
    was_running = stack.is_running
    stack.stop()
    return was_running


def end_owned() -> None:
    """End the stacks that this kernel started; one that it found running goes on."""
    if os.getpid() != _kernel:
        return
    atexit.unregister(end_owned)
    while _stacks:
        _, stack = _stacks.popitem()
        if stack.started_here:
            with contextlib.suppress(TemporalAirflowError):
                stack.stop()
