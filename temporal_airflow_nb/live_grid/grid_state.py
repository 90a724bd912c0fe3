"""The state of a grid, merged from the changes that the stack returns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.display.states import FINAL_RUN_STATES, LOOKS, PRIORITY, words
from temporal_airflow_nb.messages.grid import Counts, GridChanges, GridRun, GridTask, Structure, TaskKey

Delta = dict[str, Any]
"""A change as a page takes it: its ``type``, and what has changed by name."""

_LOOKS = {
    state: {"color": shown.color, "sign": shown.sign, "words": words(state)} for state, shown in LOOKS.items()
}
_UNSENT = frozenset({"cursor", "full"})


class GridState:
    """The latest runs of a DAG, one of them with its task instances.

    The cost of a change is that of what has changed, however many task instances there are.

    Attributes
    ----------
    seq : int
        Number of the last change.
    cursor : str or None
        Up to where the stack's changes are known.
    run_id : str
        The run whose task instances are held.
    """

    def __init__(self, dag_id: str, run_id: str) -> None:
        self.dag_id = dag_id
        self.seq = 0
        self.focus(run_id)

    def focus(self, run_id: str) -> None:
        """Hold another run's task instances; the next answer to :meth:`apply` has to be a full one."""
        self.run_id = run_id
        self.cursor: str | None = None
        self.links: Mapping[str, str] = {}
        self._now: str | None = None
        self._heard = 0.0
        self._structure: Structure | None = None
        self._runs: dict[str, GridRun] = {}
        self._tasks: dict[TaskKey, GridTask] = {}
        self._cells: dict[str, dict[str, Counts]] = {}

    @property
    def run(self) -> GridRun | None:
        """The run in focus; None before the first answer."""
        return self._runs.get(self.run_id)

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.run is not None and self.run["state"] in FINAL_RUN_STATES

    @property
    def failed(self) -> list[GridTask]:
        """The failed task instances of the run."""
        return [task for task in self._tasks.values() if task["state"] == "failed"]

    def apply(self, answer: GridChanges) -> Delta | None:
        """Apply an answer to ``get_grid_changes``.

        Returns
        -------
        dict or None
            The change as a page takes it, a full state where the answer is one; None if nothing has changed.
        """
        self.cursor = answer["cursor"]
        self._now = answer["now"]
        self._heard = time.monotonic()
        self.links = answer["links"] or self.links
        if answer["full"]:
            self._replace(answer)
            self.seq += 1
            return {"type": "full"}
        runs = [run for run in answer["runs"] if self._runs.get(run["run_id"]) != run]
        parts = (answer["tasks"], answer["removed"], answer["cells"], answer["dropped"])
        if not (runs or answer["structure"] or any(parts)):
            return None
        self._merge(answer)
        self.seq += 1
        sent = {name: value for name, value in answer.items() if name not in _UNSENT}
        return {"type": "delta", "seq": self.seq, **sent, "runs": runs}

    def full(self) -> dict[str, object]:
        """Return the whole state, as a page takes it."""
        return {
            "seq": self.seq,
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "workflow_id": workflow_id(self.dag_id, self.run_id),
            "links": dict(self.links),
            "now": self._present(),
            "structure": self._structure or {"version": None, "nodes": [], "edges": []},
            "runs": self._newest_first(),
            "tasks": self._in_order(),
            "cells": {run_id: dict(cells) for run_id, cells in self._cells.items()},
            "looks": _LOOKS,
            "state_order": [*PRIORITY],
        }

    def snapshot(self) -> dict[str, object]:
        """Return the run as :func:`temporal_airflow_nb.display.model.grid` takes it."""
        run = self.run
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "state": None if run is None else run["state"],
            "start_date": None if run is None else run["start_date"],
            "end_date": None if run is None else run["end_date"],
            "tasks": self._in_order(),
            "links": dict(self.links),
        }

    def _present(self) -> str | None:
        """Return what the stack's clock says by now; it was last heard of when something was."""
        if self._now is None:
            return None
        since = timedelta(seconds=time.monotonic() - self._heard)
        return (datetime.fromisoformat(self._now) + since).isoformat()

    def _replace(self, answer: GridChanges) -> None:
        self._structure = answer["structure"]
        self._runs = {run["run_id"]: run for run in answer["runs"]}
        self._tasks = {_key(task): task for task in answer["tasks"]}
        self._cells = {run_id: dict(cells) for run_id, cells in answer["cells"].items()}

    def _merge(self, answer: GridChanges) -> None:
        self._structure = answer["structure"] or self._structure
        for run in answer["runs"]:
            self._runs[run["run_id"]] = run
        for task_id, map_index in answer["removed"]:
            self._tasks.pop((task_id, map_index), None)
        for task in answer["tasks"]:
            self._tasks[_key(task)] = task
        for run_id, cells in answer["cells"].items():
            self._cells.setdefault(run_id, {}).update(cells)
        for run_id in answer["dropped"]:
            self._runs.pop(run_id, None)
            self._cells.pop(run_id, None)

    def _in_order(self) -> list[GridTask]:
        nodes = [] if self._structure is None else self._structure["nodes"]
        order = {node["id"]: position for position, node in enumerate(nodes)}
        return sorted(
            self._tasks.values(), key=lambda task: (order.get(task["task_id"], len(order)), task["map_index"])
        )

    def _newest_first(self) -> list[GridRun]:
        return sorted(self._runs.values(), key=lambda run: run["run_after"] or "", reverse=True)


def _key(task: GridTask) -> TaskKey:
    return task["task_id"], task["map_index"]
