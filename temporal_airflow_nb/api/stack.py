"""Start, end and describe the stack in use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from temporal_airflow_nb.api.links import Link, page
from temporal_airflow_nb.api.status import Status, describe_status
from temporal_airflow_nb.errors import interruptible
from temporal_airflow_nb.stack import current

if TYPE_CHECKING:
    from temporal_airflow_nb.stack.local import LocalStack


def up(home: str | os.PathLike[str] | None = None, *, ui: bool = False, db: str | None = None) -> LocalStack:
    """Start the embedded stack of a state folder, or attach to it, and wait until it is ready.

    The stack ends with this process, except that a stack of a notebook survives a restart of the kernel.

    Parameters
    ----------
    home
        The state folder; the configured one if omitted.
    ui
        Whether to run Airflow's API server, scheduler and DAG processor, too.
    db
        ``"sqlite"`` or ``"postgres"``; if omitted, the database that the folder has, or SQLite.

    Returns
    -------
    LocalStack
        The stack, in use from now on.

    Raises
    ------
    InvalidInputError
        The folder can't be used, or its stack runs without the UI or with the other database.
    ServiceUnavailableError
        A service doesn't start.

    Examples
    --------
    >>> import temporal_airflow_nb as ta
    >>> ta.up()                                                      # doctest: +SKIP
    LocalStack('/home/ada/etl/.temporal_airflow', running)
    """
    stack = current.embedded(home)
    before = stack.ui, stack.db
    stack.ui, stack.db = ui, db
    try:
        current.start(stack)
    # Also after an interrupt. Cells start the stack without options: they must not repeat those of a failed start.
    except BaseException:
        stack.ui, stack.db = before
        raise
    current.use(None if home is None else stack)
    return stack


def down(home: str | os.PathLike[str] | None = None) -> bool:
    """End the embedded stack of a state folder, even if another process started it.

    Unfinished runs continue when the stack is started again.

    Parameters
    ----------
    home
        The state folder; that of the stack in use if omitted.

    Returns
    -------
    bool
        Whether a stack was running.
    """
    from temporal_airflow_nb.live_grid import live
    from temporal_airflow_nb.stack.local import LocalStack

    used = current.current(home)
    stack = used if isinstance(used, LocalStack) else current.embedded(home)
    was_running = stack.is_running
    if was_running:
        note = "The stack was ended. The run continues when the stack is started again."
        # Before the stop: without a running stack, there is no client to ask for the address.
        live.close_all(note, stack.client.address)
    with interruptible("The stack continues to shut down."):
        stack.stop()
    if stack is used:
        current.use(None)
    return was_running


def status(home: str | os.PathLike[str] | None = None) -> Status:
    """Return the status of a stack: folder, addresses, versions, services, and whether it is production.

    Parameters
    ----------
    home
        The state folder of an embedded stack; the stack in use if omitted.

    Returns
    -------
    Status
        A dict: ``services``, ``env``, ``where``, ``production``.

    Examples
    --------
    >>> ta.status()["services"][0]                                   # doctest: +SKIP
    {'name': 'temporal', 'state': 'running', 'address': '127.0.0.1:7233', 'pid': 4711}
    """
    return describe_status(current.current(home))


def ui(name: str = "airflow") -> Link:
    """Return the address of Airflow's or Temporal's UI, which notebooks show as a link.

    Parameters
    ----------
    name
        ``"airflow"`` or ``"temporal"``.

    Raises
    ------
    InvalidInputError
        There is no such UI, or the stack runs without it.
    """
    return page(name)
