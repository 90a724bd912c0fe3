"""Remembers a DAG's grid and when each part of it changed, to answer ``get_grid_changes``.

Each source of a grid has a tracker: the gateway, the client of the REST API, and the client of Temporal. They read
their source again and again, and number these readings; a caller's cursor names the reading that it has seen. The
trackers have no locks: their users take a lock, or belong to one event loop.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Generic, TypeVar

from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.messages.grid import (
    Counts,
    GridChanges,
    GridNews,
    GridRun,
    GridTask,
    Structure,
    TaskKey,
)
from temporal_airflow_nb.messages.runs import TaskRow

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Row = TypeVar("Row", bound=TaskRow)


class Changes(Generic[K, V]):
    """
    Values by key, each with the number of the reading that found it.

    The cost of :meth:`since` grows with the number of changes, not with the number of values.

    Examples
    --------
    >>> changes = Changes[str, int]()
    >>> changes.put("a", 1, reading=1), changes.put("b", 1, reading=1), changes.put("a", 2, reading=2)
    (True, True, True)
    >>> list(changes.since(1))
    [('a', 2)]
    """

    def __init__(self) -> None:
        self.values: dict[K, V] = {}
        # In the order of the changes, the latest last: `since` reads from the end and stops at the first old entry.
        self._found: dict[K, int] = {}
        # Dropped keys stay here, because the cursor of a caller may be of any age.
        self._lost: dict[K, int] = {}

    def put(self, key: K, value: V, reading: int) -> bool:
        """Store a value; return whether it has changed."""
        if key in self.values and self.values[key] == value:
            return False
        self.values[key] = value
        # An assignment alone would leave the key in its old place.
        self._found.pop(key, None)
        self._found[key] = reading
        self._lost.pop(key, None)
        return True

    def keep(self, keys: Iterable[K], reading: int) -> None:
        """Drop all other keys."""
        for key in self.values.keys() - set(keys):
            del self.values[key], self._found[key]
            self._lost[key] = reading

    def since(self, reading: int) -> Iterator[tuple[K, V]]:
        """Yield the keys that changed after a reading, the latest first, with their values."""
        for key in reversed(self._found):
            if self._found[key] <= reading:
                return
            yield key, self.values[key]

    def lost_since(self, reading: int) -> list[K]:
        """Return the keys that were dropped after a reading."""
        return [key for key, lost in self._lost.items() if lost > reading]


class GridTracker:
    """
    A DAG's latest runs, the task instances of one run, and state counts of the others.

    Parameters
    ----------
    dag_id, run_id
        The run in focus.

    Attributes
    ----------
    reading : int
        Number of the latest reading. The owner increments it before it reads the source.
    runs, tasks, cells : Changes
        Runs by id, task instances by key, counts of states by run id and task id.
    order : sequence of str
        The ids of the runs to show, in order.
    """

    def __init__(self, dag_id: str, run_id: str) -> None:
        self.dag_id = dag_id
        self.run_id = run_id
        self.reading = 0
        self.runs: Changes[str, GridRun] = Changes()
        self.tasks: Changes[TaskKey, GridTask] = Changes()
        self.cells: Changes[tuple[str, str], Counts] = Changes()
        self.order: Sequence[str] = [run_id]
        self.structure: Structure | None = None
        self.structure_reading = 0
        # A cursor of another tracker, in a gateway that was restarted for example, is answered with everything.
        self._name = secrets.token_hex(4)
        self._places: dict[str, int] = {}
        self._groups: dict[str, str | None] = {}

    @property
    def run(self) -> GridRun:
        """The run in focus."""
        return self.runs.values[self.run_id]

    @property
    def cursor(self) -> str:
        """Names the latest reading."""
        return f"{self._name}.{self.reading}"

    def set_structure(self, structure: Structure) -> bool:
        """Store the structure of the DAG; return whether it has changed."""
        if structure == self.structure:
            return False
        self.structure, self.structure_reading = structure, self.reading
        self._places = {node["id"]: place for place, node in enumerate(structure["nodes"])}
        self._groups = {node["id"]: node["parent"] for node in structure["nodes"]}
        return True

    def group_of(self, task_id: str) -> str | None:
        """Return the id of a task's group."""
        return self._groups.get(task_id)

    def in_order(self, tasks: Iterable[Row]) -> list[Row]:
        """Return task instances in the order of the structure."""
        last = len(self._places)
        return sorted(tasks, key=lambda task: (self._places.get(task["task_id"], last), task["map_index"]))

    def answer(self, after: str | None, links: Mapping[str, str]) -> tuple[GridChanges, bool]:
        """Return what has changed after the cursor ``after``, and whether anything has."""
        name, _, number = (after or "").partition(".")
        full = name != self._name or not number.isdigit()
        known = 0 if full else int(number)
        changed = {run_id for run_id, _ in self.runs.since(known)}
        news: GridNews = {
            "structure": self.structure if self.structure_reading > known else None,
            "tasks": self.in_order(task.copy() for _, task in self.tasks.since(known)),
            "removed": [] if full else [list(key) for key in self.tasks.lost_since(known)],
            "cells": self._cells_since(known),
            "dropped": [] if full else self.runs.lost_since(known),
        }
        answer: GridChanges = {
            "cursor": self.cursor,
            "full": full,
            "now": datetime.now(timezone.utc).isoformat(),
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "workflow_id": workflow_id(self.dag_id, self.run_id),
            "links": dict(links),
            "runs": [
                self.runs.values[run].copy() for run in self.order if run in changed or run == self.run_id
            ],
            **news,
        }
        return answer, bool(full or changed or any(news.values()))

    def _cells_since(self, reading: int) -> dict[str, dict[str, Counts]]:
        """Return the counts that changed after a reading; those of dropped tasks are empty."""
        changed: dict[str, dict[str, Counts]] = defaultdict(dict)
        for (run_id, task_id), counts in self.cells.since(reading):
            changed[run_id][task_id] = counts
        for run_id, task_id in self.cells.lost_since(reading):
            if run_id in self.runs.values:
                changed[run_id][task_id] = {}
        return dict(changed)
