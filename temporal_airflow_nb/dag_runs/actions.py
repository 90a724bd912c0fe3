"""Arguments and results of :meth:`Run.clear` and :meth:`Run.mark`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypedDict

from temporal_airflow_nb.frames import tasks_frame

if TYPE_CHECKING:
    import pandas as pd

    from temporal_airflow_nb.dag_runs.view import RunView
    from temporal_airflow_nb.messages.runs import ActionResult


class Selection(TypedDict):
    """Tasks of a run, as the requests ``ClearTasks`` and ``MarkTasks`` take them."""

    task_ids: list[str] | None
    map_indexes: list[int] | None
    upstream: bool
    downstream: bool


def select_tasks(
    task_ids: str | Iterable[str] | None,
    map_index: int | Iterable[int] | None,
    upstream: bool,
    downstream: bool,
) -> Selection:
    """Return the tasks that a user has chosen."""
    if task_ids is None and (map_index is not None or upstream or downstream):
        raise TypeError("map_index, upstream and downstream need task_ids")
    ids = [task_ids] if isinstance(task_ids, str) else task_ids
    indexes = [map_index] if isinstance(map_index, int) else map_index
    return {
        "task_ids": None if ids is None else list(ids),
        "map_indexes": None if indexes is None else list(indexes),
        "upstream": upstream,
        "downstream": downstream,
    }


def affected_frame(run: RunView, result: ActionResult) -> pd.DataFrame:
    """Return the task instances that an action has changed, as they are now."""
    affected = {(task_id, map_index) for task_id, map_index in result["affected"]}
    snapshot = run.snapshot()
    tasks = [task for task in snapshot["tasks"] if (task["task_id"], task["map_index"]) in affected]
    return tasks_frame({**snapshot, "tasks": tasks})
