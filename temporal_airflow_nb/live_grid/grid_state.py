"""The state of a DAG's grid, merged from the changes that the stack reports.

The state has no lock of its own. Threads of the kernel share it through
:class:`~temporal_airflow_nb.live_grid.poller.GridPoller` and hold its ``lock`` for each call of a method; single fields
and ``ended`` are also read without it. Rows of runs and tasks are replaced, never changed, so that a caller may go on
reading rows after it has released the lock.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta

from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.display.states import FINAL_RUN_STATES, PRIORITY, STATE_STYLES, format_state
from temporal_airflow_nb.live_grid.messages import Delta, GridData, StateStyleData
from temporal_airflow_nb.messages.grid import Counts, GridChanges, GridRun, GridTask, Structure, TaskKey

_PAGE_STYLES: dict[str, StateStyleData] = {
    state: {"color": style.color, "sign": style.sign, "words": format_state(state)}
    for state, style in STATE_STYLES.items()
}
_NOT_FOR_PAGES = frozenset({"cursor", "full"})


class GridState:
    """The latest runs of a DAG, and the task instances of one of them.

    Merging a change takes time in proportion to the change, not to the number of task instances.

    Attributes
    ----------
    seq : int
        Number of the last change.
    cursor : str or None
        The stack reports changes after this point next.
    run_id : str
        The run in focus, whose task instances the state contains.
    """

    def __init__(self, dag_id: str, run_id: str) -> None:
        self.dag_id = dag_id
        self.seq = 0
        self.focus(run_id)

    def focus(self, run_id: str) -> None:
        """Switch to another run. The next answer given to :meth:`apply` must be a full one."""
        self.run_id = run_id
        self.cursor: str | None = None
        self.links: Mapping[str, str] = {}
        self._now: str | None = None
        self._received_at = 0.0
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
        """Whether the run in focus has ended."""
        return self.run is not None and self.run["state"] in FINAL_RUN_STATES

    @property
    def failed(self) -> list[GridTask]:
        """The failed task instances of the run."""
        return [task for task in self._tasks.values() if task["state"] == "failed"]

    def apply(self, answer: GridChanges) -> Delta | None:
        """Merge the stack's answer.

        Returns
        -------
        dict or None
            The message for the page: the change, or ``{"type": "full"}`` if everything was replaced. None if
            nothing has changed.
        """
        self.cursor = answer["cursor"]
        self._now = answer["now"]
        # Monotonic, because the clock of this machine may be set while the grid is shown.
        self._received_at = time.monotonic()
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
        sent = {name: value for name, value in answer.items() if name not in _NOT_FOR_PAGES}
        return {"type": "delta", "seq": self.seq, **sent, "runs": runs}

    def full_state(self) -> GridData:
        """Return the whole state for the page."""
        return {
            "seq": self.seq,
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "workflow_id": workflow_id(self.dag_id, self.run_id),
            "links": dict(self.links),
            "now": self._stack_time(),
            "structure": self._structure or {"version": None, "nodes": [], "edges": []},
            "runs": self._runs_newest_first(),
            "tasks": self._tasks_in_order(),
            "cells": {run_id: dict(cells) for run_id, cells in self._cells.items()},
            "state_styles": _PAGE_STYLES,
            "state_order": [*PRIORITY],
        }

    def snapshot(self) -> dict[str, object]:
        """Return the run in focus as input for :func:`temporal_airflow_nb.display.model.build_grid`."""
        run = self.run
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "state": None if run is None else run["state"],
            "start_date": None if run is None else run["start_date"],
            "end_date": None if run is None else run["end_date"],
            "tasks": self._tasks_in_order(),
            "links": dict(self.links),
        }

    def _stack_time(self) -> str | None:
        """Return the present time by the stack's clock: its last known time plus the seconds since then."""
        if self._now is None:
            return None
        elapsed = timedelta(seconds=time.monotonic() - self._received_at)
        return (datetime.fromisoformat(self._now) + elapsed).isoformat()

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

    def _tasks_in_order(self) -> list[GridTask]:
        nodes = [] if self._structure is None else self._structure["nodes"]
        order = {node["id"]: position for position, node in enumerate(nodes)}
        return sorted(
            self._tasks.values(), key=lambda task: (order.get(task["task_id"], len(order)), task["map_index"])
        )

    def _runs_newest_first(self) -> list[GridRun]:
        return sorted(self._runs.values(), key=lambda run: run["run_after"] or "", reverse=True)


def _key(task: GridTask) -> TaskKey:
    return task["task_id"], task["map_index"]
