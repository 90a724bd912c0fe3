"""What a page shows of a DAG's runs, merged from the changes that the stack tells."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.display.states import FINAL_RUN_STATES, LOOKS, PRIORITY, words

Answer = Mapping[str, Any]
Delta = dict[str, Any]

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
        self._structure: Mapping[str, Any] | None = None
        self._runs: dict[str, Mapping[str, Any]] = {}
        self._tasks: dict[tuple[str, int], Mapping[str, Any]] = {}
        self._cells: dict[str, dict[str, Mapping[str, int]]] = {}

    @property
    def run(self) -> Mapping[str, Any]:
        """The run that is held."""
        return self._runs.get(self.run_id, {})

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.run.get("state") in FINAL_RUN_STATES

    @property
    def failed(self) -> list[Mapping[str, Any]]:
        """The failed task instances of the run."""
        return [task for task in self._tasks.values() if task["state"] == "failed"]

    def apply(self, answer: Answer) -> Delta | None:
        """Take in an answer to ``feed``.

        Returns
        -------
        dict or None
            The change as a page takes it, a full state where the answer is one; None if nothing has changed.
        """
        self.cursor = answer["cursor"]
        self._now = answer["now"]
        self._heard = time.monotonic()
        self.links = answer.get("links") or self.links
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

    def full(self) -> dict[str, Any]:
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

    def snapshot(self) -> dict[str, Any]:
        """Return the run as :func:`temporal_airflow_nb.display.model.grid` takes it."""
        run = self.run
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "state": run.get("state"),
            "start_date": run.get("start_date"),
            "end_date": run.get("end_date"),
            "tasks": self._in_order(),
            "links": dict(self.links),
        }

    def _present(self) -> str | None:
        """Return what the stack's clock says by now; it was last heard of when something was."""
        if self._now is None:
            return None
        since = timedelta(seconds=time.monotonic() - self._heard)
        return (datetime.fromisoformat(self._now) + since).isoformat()

    def _replace(self, answer: Answer) -> None:
        self._structure = answer["structure"]
        self._runs = {run["run_id"]: run for run in answer["runs"]}
        self._tasks = {_key(task): task for task in answer["tasks"]}
        self._cells = {run_id: dict(cells) for run_id, cells in answer["cells"].items()}

    def _merge(self, answer: Answer) -> None:
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

    def _in_order(self) -> list[Mapping[str, Any]]:
        nodes = (self._structure or {}).get("nodes") or ()
        order = {node["id"]: position for position, node in enumerate(nodes)}
        return sorted(
            self._tasks.values(), key=lambda task: (order.get(task["task_id"], len(order)), task["map_index"])
        )

    def _newest_first(self) -> list[Mapping[str, Any]]:
        return sorted(self._runs.values(), key=lambda run: str(run.get("run_after") or ""), reverse=True)


def _key(task: Mapping[str, Any]) -> tuple[str, int]:
    return task["task_id"], task["map_index"]
