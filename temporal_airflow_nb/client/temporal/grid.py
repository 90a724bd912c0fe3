"""Reads the answer of a run's workflow to its query ``grid``. No Airflow is needed."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import Any

from temporal_airflow_nb.messages.grid import Counts, GridRun, GridTask, Node, Structure
from temporal_airflow_nb.messages.requests import JsonObject
from temporal_airflow_nb.orchestration.workflow.grid_encoding import build_flat_structure, unpack


class WorkflowGrid:
    """
    A run's grid, as ``get_grid_changes`` answers it.

    Parameters
    ----------
    answer
        What the query ``grid`` returned. An answer of another shape raises one of Python's own errors.

    Attributes
    ----------
    run, structure : dict
        The run, and its DAG: without documentation, and flat if the workflow doesn't know the DAG.
    tasks : list of dict
        The task instances, in the order of the structure. ``pool`` is always None.
    """

    def __init__(self, answer: JsonObject) -> None:
        facts = answer["run"]
        rows = unpack(answer["tasks"])
        known: JsonObject | None = unpack(answer["structure"]) if answer["structure"] else None
        task_ids = sorted({row[0] for row in rows})
        structure = known or dict(build_flat_structure((task_id, None) for task_id in task_ids))
        nodes: list[Node] = structure["nodes"]
        self._topological = {
            nodes[place]["id"]: turn for turn, place in enumerate(structure.get("order", ()))
        }
        self.structure: Structure = {
            "version": facts.get("structure_version") if known else None,
            "nodes": nodes,
            "edges": structure["edges"],
        }
        self.run: GridRun = {
            "run_id": facts["run_id"],
            "state": facts["state"],
            "run_type": facts.get("run_type"),
            "start_date": moment(facts.get("start_date")),
            "end_date": moment(facts.get("end_date")),
            "queued_at": moment(facts.get("queued_at")),
            "logical_date": moment(facts.get("logical_date")),
            "run_after": moment(facts.get("run_after")),
            "version": facts.get("version"),
            "note": None,
        }
        places = {node["id"]: place for place, node in enumerate(nodes)}
        by_id = {node["id"]: node for node in nodes}
        # The workflow has no rows of tasks that no scheduling pass has reached yet.
        reported = {row[0] for row in rows}
        rows += [
            [node["id"], -1, None, 0, node["retries"], None, None, None, None, []]
            for node in nodes
            if node["kind"] == "task" and node["id"] not in reported
        ]
        self.tasks = [_task(row, by_id.get(row[0])) for row in rows]
        self.tasks.sort(key=lambda task: (places.get(task["task_id"], len(places)), task["map_index"]))

    def in_topological_order(self) -> list[GridTask]:
        """Return the task instances in the order in which they can run."""
        last = len(self._topological)
        return sorted(self.tasks, key=lambda task: self._topological.get(task["task_id"], last))

    def counts(self) -> dict[str, Counts]:
        """Return the number of instances of each task in each state."""
        counts: dict[str, Counter[str]] = {}
        for task in self.tasks:
            counts.setdefault(task["task_id"], Counter())[task["state"] or "no_status"] += 1
        return {task_id: dict(states) for task_id, states in counts.items()}


def _task(row: list[Any], node: Node | None) -> GridTask:
    task_id, map_index, state, try_number, max_tries, queued, start, end, label, former = row
    if not (isinstance(task_id, str) and isinstance(map_index, int) and isinstance(state, (str, type(None)))):
        raise ValueError(f"a task instance is {row[:3]}")
    is_over = start is not None and end is not None
    return {
        "task_id": task_id,
        "map_index": map_index,
        "state": state,
        "try_number": try_number,
        "max_tries": max_tries or 0,
        "operator": None if node is None else node["operator"],
        "start_date": moment(start),
        "end_date": moment(end),
        "duration": round(end - start, 6) if is_over else None,
        "queued_dttm": moment(queued),
        "pool": None,
        "label": label,
        "group": None if node is None else node["parent"],
        "tries": [[number, ended, *map(moment, times)] for number, ended, *times in former],
    }


def moment(seconds: float | None) -> str | None:
    """Return seconds since the epoch as text, in UTC.

    >>> moment(0.5)
    '1970-01-01T00:00:00.500000+00:00'
    """
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat()
