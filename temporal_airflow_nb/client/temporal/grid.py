"""Reads what a run's workflow answers to its query ``grid``. No Airflow is needed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from temporal_airflow_nb.orchestration.workflow.grid_encoding import build_flat_structure, unpack

_MOMENTS = ("logical_date", "run_after", "queued_at", "start_date", "end_date")


class WorkflowGrid:
    """
    A run's grid in the shapes of the operation ``feed``.

    Parameters
    ----------
    answer
        What the query ``grid`` returned.

    Attributes
    ----------
    run, structure : dict
        The run, and what its DAG looks like: without documentation, and flat where the workflow doesn't know it.
    tasks : list of dict
        The task instances, in the order of the structure. ``pool`` is always None.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        facts = answer["run"]
        rows = unpack(answer["tasks"])
        known = unpack(answer["structure"]) if answer["structure"] else None
        structure = known or build_flat_structure(
            (task_id, None) for task_id in sorted({row[0] for row in rows})
        )
        nodes = structure["nodes"]
        self._topological = {
            nodes[place]["id"]: turn for turn, place in enumerate(structure.pop("order", ()))
        }
        self.structure = {"version": facts.get("structure_version") if known else None, **structure}
        self.run = {
            "run_id": facts["run_id"],
            "state": facts["state"],
            "run_type": facts.get("run_type"),
            "version": facts.get("version"),
            "note": None,
            **{name: moment(facts.get(name)) for name in _MOMENTS},
        }
        by_id = {node["id"]: (place, node) for place, node in enumerate(nodes)}
        # What no scheduling pass has looked at yet isn't told.
        told = {row[0] for row in rows}
        rows += [
            [node["id"], -1, None, 0, node["retries"], None, None, None, None, []]
            for node in nodes
            if node["kind"] == "task" and node["id"] not in told
        ]
        nowhere = (len(nodes), {"operator": None, "parent": None})
        self.tasks = [_task(row, by_id.get(row[0], nowhere)[1]) for row in rows]
        self.tasks.sort(key=lambda task: (by_id.get(task["task_id"], nowhere)[0], task["map_index"]))

    def in_topological_order(self) -> list[dict[str, Any]]:
        """Return the task instances in the order in which they can run."""
        last = len(self._topological)
        return sorted(self.tasks, key=lambda task: self._topological.get(task["task_id"], last))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many instances of each task are in each state."""
        counts: dict[str, dict[str, int]] = {}
        for task in self.tasks:
            of_task = counts.setdefault(task["task_id"], {})
            state = task["state"] or "no_status"
            of_task[state] = of_task.get(state, 0) + 1
        return counts


def _task(row: list[Any], node: Mapping[str, Any]) -> dict[str, Any]:
    task_id, map_index, state, try_number, max_tries, queued, start, end, label, former = row
    over = start is not None and end is not None
    return {
        "task_id": task_id,
        "map_index": map_index,
        "state": state,
        "try_number": try_number,
        "max_tries": max_tries or 0,
        "operator": node["operator"],
        "start_date": moment(start),
        "end_date": moment(end),
        "duration": round(end - start, 6) if over else None,
        "queued_dttm": moment(queued),
        "pool": None,
        "label": label,
        "group": node["parent"],
        "tries": [[number, ended, *map(moment, times)] for number, ended, *times in former],
    }


def moment(seconds: float | None) -> str | None:
    """Return seconds since the epoch as text, in UTC.

    >>> moment(0.5)
    '1970-01-01T00:00:00.500000+00:00'
    """
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat()
