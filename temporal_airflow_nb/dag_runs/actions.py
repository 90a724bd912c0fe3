"""What :meth:`Run.clear` and :meth:`Run.mark` ask of a client and return."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from temporal_airflow_nb.dag_runs.view import RunView


def apply(run: RunView, op: str, **body: Any) -> pd.DataFrame:
    """Clear or mark tasks; return the task instances that have changed."""
    from temporal_airflow_nb.frames import tasks_frame

    affected = {(task_id, map_index) for task_id, map_index in run._call(op, **body)["affected"]}
    snapshot = run.snapshot()
    tasks = [task for task in snapshot["tasks"] if (task["task_id"], task["map_index"]) in affected]
    return tasks_frame({**snapshot, "tasks": tasks})


def selection(
    task_ids: str | Iterable[str] | None,
    map_index: int | Iterable[int] | None,
    upstream: bool,
    downstream: bool,
) -> dict[str, Any]:
    """Return the chosen tasks as the operations take them."""
    if task_ids is None and (map_index is not None or upstream or downstream):
        raise TypeError("map_index, upstream and downstream need task_ids")
    return {
        "task_ids": [task_ids] if isinstance(task_ids, str) else task_ids and list(task_ids),
        "map_indexes": [map_index] if isinstance(map_index, int) else map_index and list(map_index),
        "upstream": upstream,
        "downstream": downstream,
    }
