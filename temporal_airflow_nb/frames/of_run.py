"""The frames of one run.

Runs in the user's process, on the answers of any client. The dictionaries define the columns of each frame, their order
and their kinds, so a frame has the same form whichever client answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from temporal_airflow_nb.frames.columns import (
    ANYTHING,
    INDEX,
    MOMENT,
    NUMBER,
    SOME_NUMBER,
    SPAN,
    TASK_STATE,
    TEXT,
    Columns,
    columns_of,
    frame_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from temporal_airflow_nb.messages.runs import RunSnapshot
    from temporal_airflow_nb.messages.tables import Table
    from temporal_airflow_nb.messages.tasks import XCom

_TASKS = {
    "task_id": TEXT,
    "map_index": INDEX,
    "state": TASK_STATE,
    "try_number": NUMBER,
    "max_tries": NUMBER,
    "operator": TEXT,
    "start_date": MOMENT,
    "end_date": MOMENT,
    "duration": SPAN,
    "queued_dttm": MOMENT,
    "pool": TEXT,
    "label": TEXT,
    "group": TEXT,
}
_TRIES = {
    "task_id": TEXT,
    "map_index": INDEX,
    "try_number": NUMBER,
    "state": TASK_STATE,
    "operator": TEXT,
    "queued_dttm": MOMENT,
    "start_date": MOMENT,
    "end_date": MOMENT,
    "duration": SPAN,
    "hostname": TEXT,
    "pool": TEXT,
    "queue": TEXT,
}
_XCOMS = {"task_id": TEXT, "map_index": INDEX, "key": TEXT, "value": ANYTHING, "timestamp": MOMENT}
_EVENTS = {
    "event_id": NUMBER,
    "time": MOMENT,
    "type": TEXT,
    "task_id": TEXT,
    "map_index": SOME_NUMBER,
    "try_number": SOME_NUMBER,
    "detail": TEXT,
    "execution": TEXT,
}
_ASSETS = {
    "direction": TEXT,
    "asset": TEXT,
    "uri": TEXT,
    "group": TEXT,
    "timestamp": MOMENT,
    "task_id": TEXT,
    "map_index": SOME_NUMBER,
    "source_dag_id": TEXT,
    "source_run_id": TEXT,
    "extra": ANYTHING,
    "partition_key": TEXT,
}


def tasks_frame(answer: Table | RunSnapshot, *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return the task instances of a run, one a row, in topological order.

    Parameters
    ----------
    answer
        The run's snapshot, or the table of its task instances.
    dtype_backend
        ``"pyarrow"`` for columns that Arrow holds.

    Returns
    -------
    pandas.DataFrame
        ``task_id``, ``map_index`` (-1 if not mapped), ``state`` (category; missing while the task has
        none), ``try_number`` (0 before the first try), ``max_tries`` (retries allowed), ``operator``,
        ``start_date``, ``end_date``, ``duration`` (missing until the try ends), ``queued_dttm``, ``pool``,
        ``label`` (of a mapped instance), ``group`` (id of the task group).

    Examples
    --------
    >>> tasks_frame({"tasks": []}).dtypes["duration"]
    dtype('<m8[us]')
    """
    if "columns" in answer:
        columns: Columns = cast("Table", answer)["columns"]
    else:
        columns = columns_of(answer["tasks"], _TASKS)
    return frame_of(columns, _TASKS, dtype_backend)


def tries_frame(answer: Table, *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return all tries of a run's task instances, one a row, in topological order.

    Parameters
    ----------
    answer
        The table that the stack returned.
    dtype_backend
        ``"pyarrow"`` for columns that Arrow holds.

    Returns
    -------
    pandas.DataFrame
        ``task_id``, ``map_index``, ``try_number`` (from 1), ``state`` (category; how the try ended, or is),
        ``operator``, ``queued_dttm``, ``start_date``, ``end_date``, ``duration``, ``hostname``, ``pool``, ``queue``.
    """
    return frame_of(answer["columns"], _TRIES, dtype_backend)


def xcoms_frame(xcoms: Iterable[XCom], *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return XComs, one a row.

    Parameters
    ----------
    xcoms
        XComs that the stack returned, values deserialised.
    dtype_backend
        ``"pyarrow"`` for columns that Arrow holds; values stay objects.

    Returns
    -------
    pandas.DataFrame
        ``task_id``, ``map_index`` (-1 if not mapped), ``key``, ``value`` (any object), ``timestamp``.
    """
    return frame_of(columns_of(list(xcoms), _XCOMS), _XCOMS, dtype_backend)


def events_frame(answer: Table, *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return the history of a run's workflow, one event a row, in Temporal's order.

    Parameters
    ----------
    answer
        The table that the stack returned.
    dtype_backend
        ``"pyarrow"`` for columns that Arrow holds.

    Returns
    -------
    pandas.DataFrame
        ``event_id`` (as in Temporal; events of the workflow's own steps are left out), ``time``, ``type`` in words,
        ``task_id``, ``map_index`` and ``try_number`` of the task that the event concerns (missing if it concerns no
        task), ``detail``, ``execution`` (Temporal's id of the execution: a run that was cleared has several).
    """
    return frame_of(answer["columns"], _EVENTS, dtype_backend)


def assets_frame(answer: Table, *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return the asset events that created a run, and those that it produced, one a row.

    Parameters
    ----------
    answer
        The table that the stack returned.
    dtype_backend
        ``"pyarrow"`` for columns that Arrow holds; ``extra`` stays objects.

    Returns
    -------
    pandas.DataFrame
        ``direction`` (``"consumed"`` or ``"produced"``), ``asset`` (its name), ``uri``, ``group``, ``timestamp``,
        the producing ``task_id``, ``map_index``, ``source_dag_id`` and ``source_run_id`` (missing if no task
        produced the event), ``extra`` (dict), ``partition_key``.
    """
    return frame_of(answer["columns"], _ASSETS, dtype_backend)
