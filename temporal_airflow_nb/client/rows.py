"""What all doors do with rows: the times of a try, and columns for those that have no gateway to make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from temporal_airflow_nb.errors import InvalidInputError

TASK_COLUMNS: Final = (
    "task_id",
    "map_index",
    "state",
    "try_number",
    "max_tries",
    "operator",
    "start_date",
    "end_date",
    "duration",
    "queued_dttm",
    "pool",
    "label",
    "group",
)
"""What is told of a task instance, in a run's snapshot and as columns."""


RUN_STATES: Final = ("queued", "running", "success", "failed")


def check_run_state(state: str | None) -> None:
    """Refuse what isn't a run's state; None stands for any."""
    if state is not None and state not in RUN_STATES:
        raise InvalidInputError(
            f"There is no run state {state!r}.", hint=f"States: {', '.join(RUN_STATES)}.", state=state
        )


def as_columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Return an answer with columns, as the gateway gives it; what a row lacks is missing.

    >>> as_columns([{"a": 1}, {"a": 2, "b": 3}], ["a", "b"])
    {'columns': {'a': [1, 2], 'b': [None, 3]}, 'rows': 2}
    """
    return {"columns": {name: [row.get(name) for row in rows] for name in names}, "rows": len(rows)}


def own_times(task: Mapping[str, Any], queued: str | None, start: str | None) -> dict[str, Any]:
    """
    Return the times of a task instance's try, without those that its row still has of the try before.

    Parameters
    ----------
    task
        The times on the row, as text.
    queued, start
        When the try before was queued, and began.

    Examples
    --------
    >>> row = {"queued_dttm": "09:05", "start_date": "09:01", "end_date": "09:02", "duration": 60.0}
    >>> own_times(row, queued="09:00", start="09:01")
    {'queued_dttm': '09:05', 'start_date': None, 'end_date': None, 'duration': None}
    """
    times = {name: task[name] for name in ("queued_dttm", "start_date", "end_date", "duration")}
    if times["start_date"] == start:
        times["start_date"] = times["end_date"] = None
    if times["queued_dttm"] == queued:
        times["queued_dttm"] = None
    if times["end_date"] is None:
        times["duration"] = None
    return times
