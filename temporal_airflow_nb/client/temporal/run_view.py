"""A run's grid as a stream of changes, from its workflow alone."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError

from temporal_airflow_nb.client.change_tracker import Changes, cells_since
from temporal_airflow_nb.client.temporal.executions import described, executions, grid_of, ids_of
from temporal_airflow_nb.client.temporal.grid import WorkflowGrid
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.errors import TemporalAirflowError

# A query is answered by a worker: what follows at once goes into the same answer.
_REST_SECONDS: Final = 0.05
_RESTS_PER_COST: Final = 2
_LONGEST_REST: Final = 1.0
# New runs, and executions anew of one that has ended, are looked for at this interval.
_LOOK_SECONDS: Final = 2.0
# Other runs that go on are asked at this interval, and each look at them takes no longer than that.
_OTHERS_SECONDS: Final = 5.0
_OTHERS_COST: Final = 0.2
_IDLE_SECONDS: Final = 60.0
_QUIET = frozenset(
    {
        EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
        EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
        EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED,
    }
)


# A run, and how many instances of each of its tasks are in each state.
_Told = tuple[dict[str, Any], dict[str, dict[str, int]]]


class RunView:
    """
    What is known of a run, and of its DAG's latest runs.

    It belongs to one event loop. The run's workflow is asked after its history has got new events, never by the clock.

    Parameters
    ----------
    client
        Of Temporal.
    dag_id, run_id
        The run.
    """

    def __init__(self, client: Client, dag_id: str, run_id: str) -> None:
        self.dag_id = dag_id
        self.run_id = run_id
        self.grid: WorkflowGrid | None = None
        self.number = 0
        """Grows with each look at the run that found something new."""
        self._client = client
        self._name = secrets.token_hex(4)
        self._stale = True
        self._news = asyncio.Event()
        self._lock = asyncio.Lock()
        self._rests_until = self._runs_read = 0.0
        self._used = asyncio.get_running_loop().time()
        self._window = 0
        self._some_untold = False
        self._structure: tuple[dict[str, Any], int] = ({}, 0)
        self._runs = Changes()
        self._tasks = Changes()
        self._cells = Changes()
        self._others: dict[str, tuple[Any, _Told | None]] = {}
        self._order: list[str] = [run_id]
        self._watcher = asyncio.ensure_future(self._watch())

    @property
    def cursor(self) -> str:
        """Names what is known now."""
        return f"{self._name}.{self.number}"

    def close(self) -> None:
        """Stop following the run."""
        self._watcher.cancel()

    async def wait(self, seconds: float) -> None:
        """Wait for something to happen in the run's workflow."""
        self._news.clear()
        if not self._stale and not self._some_untold:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), max(0.0, min(seconds, _LOOK_SECONDS)))

    async def refresh(self, window: int = 0) -> WorkflowGrid:
        """Ask the workflow, if something has happened in it; look for ``window`` runs of the DAG, now and then."""
        async with self._lock:
            clock = asyncio.get_running_loop().time
            self._used = clock()
            if self._watcher.done():
                self._stale, self._watcher = True, asyncio.ensure_future(self._watch())
            if self._stale or self.grid is None:
                await asyncio.sleep(self._rests_until - clock())
                self._stale = False
                began = clock()
                try:
                    self._take(await grid_of(self._client, self.dag_id, self.run_id))
                except BaseException:
                    self._stale = True
                    raise
                rest = min(_RESTS_PER_COST * (clock() - began), _LONGEST_REST)
                self._rests_until = clock() + max(_REST_SECONDS, rest)
            due = self._some_untold or window != self._window or clock() - self._runs_read > _LOOK_SECONDS
            if window and due:
                await self._read_runs(window)
                self._window, self._runs_read = window, clock()
            assert self.grid is not None
            return self.grid

    def changes(self, after: str | None) -> tuple[dict[str, Any], bool]:
        """Return what ``feed`` answers: what has changed after the cursor ``after``; and whether anything has."""
        name, _, number = (after or "").partition(".")
        full = name != self._name or not number.isdigit()
        known = 0 if full else int(number)
        structure, found = self._structure
        places = {node["id"]: place for place, node in enumerate(structure["nodes"])}
        changed = {run_id for run_id, _ in self._runs.since(known)}
        tasks = [dict(task) for _, task in self._tasks.since(known)]
        tasks.sort(key=lambda task: (places.get(task["task_id"], len(places)), task["map_index"]))
        news: dict[str, Any] = {
            "structure": structure if found > known else None,
            "tasks": tasks,
            "removed": [] if full else [list(key) for key in self._tasks.lost_since(known)],
            "cells": cells_since(known, self._cells, self._runs),
            "dropped": [] if full else self._runs.lost_since(known),
        }
        answer = {
            "cursor": self.cursor,
            "full": full,
            "now": datetime.now(timezone.utc).isoformat(),
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "workflow_id": workflow_id(self.dag_id, self.run_id),
            "links": {},
            "runs": [
                dict(self._runs.values[run]) for run in self._order if run in changed or run == self.run_id
            ],
            **news,
        }
        return answer, bool(full or changed or any(news.values()))

    def _take(self, grid: WorkflowGrid) -> None:
        self.grid = grid
        self.number += 1
        if grid.structure != self._structure[0]:
            self._structure = (grid.structure, self.number)
        self._runs.put(self.run_id, grid.run, self.number)
        for task in grid.tasks:
            self._tasks.put((task["task_id"], task["map_index"]), task, self.number)
        self._tasks.keep([(task["task_id"], task["map_index"]) for task in grid.tasks], self.number)

    async def _read_runs(self, window: int) -> None:
        """Read the DAG's latest runs, and what their workflows tell of them where that may be new."""
        self.number += 1
        found = await executions(self._client, self.dag_id, window)
        others = {ids_of(execution)[1]: execution for execution in found}
        others.pop(self.run_id, None)
        await self._ask_others(others)
        counted = []
        for run_id, execution in others.items():
            _, told = self._others.get(run_id, (None, None))
            run, cells = told or (_listed(execution), {})
            self._runs.put(run_id, run, self.number)
            for task_id, counts in cells.items():
                self._cells.put((run_id, task_id), counts, self.number)
                counted.append((run_id, task_id))
        self._runs.keep([self.run_id, *others], self.number)
        self._cells.keep(counted, self.number)
        runs = self._runs.values
        self._order = sorted(runs, key=lambda run: _age(runs[run]), reverse=True)[:window]
        if self.run_id not in self._order:
            self._order.append(self.run_id)

    async def _ask_others(self, others: Mapping[str, WorkflowExecution]) -> None:
        """Ask those workflows that may tell something new, as many as there is time for."""
        clock = asyncio.get_running_loop().time
        began = clock()
        self._others = {run_id: told for run_id, told in self._others.items() if run_id in others}
        self._some_untold = False
        for run_id, execution in others.items():
            beat = 0 if execution.close_time else int(began / _OTHERS_SECONDS)
            version = (execution.run_id, execution.history_length, beat)
            if self._others.get(run_id, (None, None))[0] == version:
                continue
            if clock() - began > _OTHERS_COST:
                self._some_untold = True
                return
            self._others[run_id] = (version, await self._told(run_id, execution))

    async def _told(self, run_id: str, execution: WorkflowExecution) -> _Told | None:
        try:
            grid = await grid_of(self._client, self.dag_id, run_id, execution.run_id)
            return grid.run, grid.counts()
        except (TemporalAirflowError, RPCError):
            # A workflow of an older version, say: the run is shown without its tasks.
            return None

    async def _watch(self) -> None:
        handle = self._client.get_workflow_handle(workflow_id(self.dag_id, self.run_id))
        followed = None
        clock = asyncio.get_running_loop().time
        while clock() - self._used < _IDLE_SECONDS:
            try:
                latest = await handle.describe()
                if latest.run_id != followed:
                    self._touch()
                    await self._follow(latest)
                    followed = latest.run_id
                    continue
            except RPCError:
                # Who asks next is told why.
                self._touch()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _follow(self, execution: WorkflowExecution) -> None:
        """Have the workflow asked after each new event, until this execution ends."""
        handle = self._client.get_workflow_handle(execution.id, run_id=execution.run_id)
        async for event in handle.fetch_history_events(wait_new_event=True):
            if event.event_id > execution.history_length and event.event_type not in _QUIET:
                self._touch()

    def _touch(self) -> None:
        self._stale = True
        self._news.set()


def _age(run: Mapping[str, Any]) -> str:
    return run["run_after"] or run["start_date"] or ""


def _listed(execution: WorkflowExecution) -> dict[str, Any]:
    run = described(execution)
    known = {name: run[name] for name in ("run_id", "state", "run_type", "start_date", "end_date")}
    return {
        **known,
        "queued_at": None,
        "logical_date": None,
        "run_after": None,
        "version": None,
        "note": None,
    }
