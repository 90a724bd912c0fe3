"""Helpers for rows that the gateway and the clients share: times of tries, tables, run states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.messages.tables import Table
from temporal_airflow_nb.messages.tasks import Times

RUN_STATES: Final = ("queued", "running", "success", "failed")


def check_run_state(state: str | None) -> None:
    """Refuse a text that isn't the state of a run; None stands for any state."""
    if state is not None and state not in RUN_STATES:
        raise InvalidInputError(
            f"There is no run state {state!r}.", hint=f"States: {', '.join(RUN_STATES)}.", state=state
        )


def as_table(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> Table:
    """Return rows as a table; values that a row lacks are None.

    >>> as_table([{"a": 1}, {"a": 2, "b": 3}], ["a", "b"])
    {'columns': {'a': [1, 2], 'b': [None, 3]}, 'rows': 2}
    """
    return {"columns": {name: [row.get(name) for row in rows] for name in names}, "rows": len(rows)}


def own_times(task: Times, queued: str | None, start: str | None) -> Times:
    """
    Return the times of a task instance's latest try, without those of the try before.

    Airflow leaves the times of a try in the row of the task instance until the next try replaces them one by one.

    Parameters
    ----------
    task
        The times in the row.
    queued, start
        When the try before was queued, and began.

    Examples
    --------
    >>> row = {"queued_dttm": "09:05", "start_date": "09:01", "end_date": "09:02", "duration": 60.0}
    >>> own_times(row, queued="09:00", start="09:01")
    {'queued_dttm': '09:05', 'start_date': None, 'end_date': None, 'duration': None}
    """
    times: Times = {
        "queued_dttm": task["queued_dttm"],
        "start_date": task["start_date"],
        "end_date": task["end_date"],
        "duration": task["duration"],
    }
    # A time that equals the former try's was left over from it.
    if times["start_date"] == start:
        times["start_date"] = times["end_date"] = None
    if times["queued_dttm"] == queued:
        times["queued_dttm"] = None
    if times["end_date"] is None:
        times["duration"] = None
    return times
