"""Rows as columns, for the doors that have no gateway to make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

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


def as_columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Return an answer with columns, as the gateway gives it; what a row lacks is missing.

    >>> as_columns([{"a": 1}, {"a": 2, "b": 3}], ["a", "b"])
    {'columns': {'a': [1, 2], 'b': [None, 3]}, 'rows': 2}
    """
    return {"columns": {name: [row.get(name) for row in rows] for name in names}, "rows": len(rows)}
