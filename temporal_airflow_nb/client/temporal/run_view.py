"""Follows a run's grid through the workflow of the run alone.

The client of Temporal has a view for each run that is followed, and uses it in its event loop only. An asyncio.Lock
lets one refresh run at a time, so that callers who wait for the same run share its queries. An asyncio task follows the
workflow's history and wakes the callers. It ends after an execution of the workflow has ended and no caller has
refreshed the view for a minute; the next refresh starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError

from temporal_airflow_nb.client.grid_tracker import GridTracker
from temporal_airflow_nb.client.temporal.executions import describe, executions, grid_of, ids_of
from temporal_airflow_nb.client.temporal.grid import WorkflowGrid
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.errors import TemporalAirflowError
from temporal_airflow_nb.messages.grid import Counts, GridChanges, GridRun

# A worker has to answer each query. Pauses between the queries let events in quick succession share one.
_PAUSE_SECONDS: Final = 0.05
_PAUSES_PER_COST: Final = 2
_LONGEST_PAUSE: Final = 1.0
# The DAG's runs are listed at this interval; this also finds new executions of a run that had ended.
_LIST_SECONDS: Final = 2.0
# Other unfinished runs are queried at this interval, for about `_OTHERS_COST` seconds at a time.
_OTHERS_SECONDS: Final = 5.0
_OTHERS_COST: Final = 0.2
# Between two executions, the task that follows the history ends if no caller has refreshed the view for so long.
_IDLE_SECONDS: Final = 60.0
# Events after which the answer to the query can't have changed.
_QUIET = frozenset(
    {
        EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
        EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
        EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED,
    }
)


# A run, and the number of instances of each of its tasks in each state.
_OtherRun = tuple[GridRun, dict[str, Counts]]
# The execution, the length of its history, and the time of the query in units of `_OTHERS_SECONDS`.
_Version = tuple[str, int, int]


class RunView:
    """
    A run and its DAG's latest runs, as their workflows report them.

    A view belongs to one event loop. It queries the run's workflow after new events in its history, never by the clock.

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
        # Everything below belongs to the running event loop, so a view has to be made in a coroutine.
        self._client = client
        self._tracker = GridTracker(dag_id, run_id)
        self._is_stale = True
        self._news = asyncio.Event()
        self._lock = asyncio.Lock()
        self._paused_until = self._runs_read = 0.0
        self._used = asyncio.get_running_loop().time()
        self._window = 0
        self._some_unasked = False
        self._others: dict[str, tuple[_Version, _OtherRun | None]] = {}
        self._watcher = asyncio.ensure_future(self._watch())

    @property
    def cursor(self) -> str:
        """Names the state that the view is in."""
        return self._tracker.cursor

    def close(self) -> None:
        """Stop following the run."""
        self._watcher.cancel()

    async def wait(self, seconds: float) -> None:
        """Wait for an event in the run's workflow."""
        # An event before this line has also set `_is_stale`, so that the caller doesn't wait.
        self._news.clear()
        if not self._is_stale and not self._some_unasked:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), max(0.0, min(seconds, _LIST_SECONDS)))

    async def refresh(self, window: int = 0) -> WorkflowGrid:
        """Query the workflow if it had events; list the DAG's latest ``window`` runs at intervals."""
        async with self._lock:
            clock = asyncio.get_running_loop().time
            self._used = clock()
            if self._watcher.done():
                self._is_stale, self._watcher = True, asyncio.ensure_future(self._watch())
            if self._is_stale or self.grid is None:
                # While this waits it holds the lock, so that further callers share the query.
                await asyncio.sleep(self._paused_until - clock())
                # Before the query: an event during it makes the answer stale again.
                self._is_stale = False
                began = clock()
                try:
                    self._store(await grid_of(self._client, self.dag_id, self.run_id))
                except BaseException:
                    # A cancelled caller, too, must leave the query to the next one.
                    self._is_stale = True
                    raise
                pause = min(_PAUSES_PER_COST * (clock() - began), _LONGEST_PAUSE)
                self._paused_until = clock() + max(_PAUSE_SECONDS, pause)
            due = self._some_unasked or window != self._window or clock() - self._runs_read > _LIST_SECONDS
            if window and due:
                await self._read_runs(window)
                self._window, self._runs_read = window, clock()
            assert self.grid is not None
            return self.grid

    def changes(self, after: str | None) -> tuple[GridChanges, bool]:
        """Return what has changed after the cursor ``after``, and whether anything has."""
        return self._tracker.answer(after, {})

    def _store(self, grid: WorkflowGrid) -> None:
        self.grid = grid
        tracker = self._tracker
        tracker.reading += 1
        tracker.set_structure(grid.structure)
        tracker.runs.put(self.run_id, grid.run, tracker.reading)
        for task in grid.tasks:
            tracker.tasks.put((task["task_id"], task["map_index"]), task, tracker.reading)
        tracker.tasks.keep([(task["task_id"], task["map_index"]) for task in grid.tasks], tracker.reading)

    async def _read_runs(self, window: int) -> None:
        """List the DAG's latest runs, and query the workflows that may have changed."""
        tracker = self._tracker
        tracker.reading += 1
        found = await executions(self._client, self.dag_id, window)
        others = {ids_of(execution)[1]: execution for execution in found}
        others.pop(self.run_id, None)
        await self._ask_others(others)
        counted = []
        for run_id, execution in others.items():
            known = self._others.get(run_id)
            run, cells = (known and known[1]) or (_listed_run(execution), {})
            tracker.runs.put(run_id, run, tracker.reading)
            for task_id, counts in cells.items():
                tracker.cells.put((run_id, task_id), counts, tracker.reading)
                counted.append((run_id, task_id))
        tracker.runs.keep([self.run_id, *others], tracker.reading)
        tracker.cells.keep(counted, tracker.reading)
        runs = tracker.runs.values
        order = sorted(runs, key=lambda run: _age(runs[run]), reverse=True)[:window]
        tracker.order = order if self.run_id in order else [*order, self.run_id]

    async def _ask_others(self, others: Mapping[str, WorkflowExecution]) -> None:
        """Query other runs' workflows that may have changed, as many as the time allows."""
        clock = asyncio.get_running_loop().time
        began = clock()
        self._others = {run_id: known for run_id, known in self._others.items() if run_id in others}
        self._some_unasked = False
        for run_id, execution in others.items():
            beat = 0 if execution.close_time else int(began / _OTHERS_SECONDS)
            version = (execution.run_id, execution.history_length, beat)
            known = self._others.get(run_id)
            if known is not None and known[0] == version:
                continue
            if clock() - began > _OTHERS_COST:
                self._some_unasked = True
                return
            self._others[run_id] = (version, await self._ask_other(run_id, execution))

    async def _ask_other(self, run_id: str, execution: WorkflowExecution) -> _OtherRun | None:
        try:
            grid = await grid_of(self._client, self.dag_id, run_id, execution.run_id)
            return grid.run, grid.counts()
        except (TemporalAirflowError, RPCError):
            # A workflow of an older version, for example: the run is shown without its tasks.
            return None

    async def _watch(self) -> None:
        handle = self._client.get_workflow_handle(workflow_id(self.dag_id, self.run_id))
        followed = None
        clock = asyncio.get_running_loop().time
        while clock() - self._used < _IDLE_SECONDS:
            try:
                latest = await handle.describe()
                if latest.run_id != followed:
                    self._wake()
                    await self._follow(latest)
                    followed = latest.run_id
                    continue
            except RPCError:
                # The next caller's query raises the error where the caller sees it.
                self._wake()
            await asyncio.sleep(_LIST_SECONDS)

    async def _follow(self, execution: WorkflowExecution) -> None:
        """Mark the grid as stale after each new event, until this execution ends."""
        handle = self._client.get_workflow_handle(execution.id, run_id=execution.run_id)
        async for event in handle.fetch_history_events(wait_new_event=True):
            # The events up to that length were there before `_watch` woke the callers.
            if event.event_id > execution.history_length and event.event_type not in _QUIET:
                self._wake()

    def _wake(self) -> None:
        self._is_stale = True
        self._news.set()


def _age(run: GridRun) -> str:
    return run["run_after"] or run["start_date"] or ""


def _listed_run(execution: WorkflowExecution) -> GridRun:
    run = describe(execution)
    return {
        "run_id": run["run_id"],
        "state": run["state"],
        "run_type": run["run_type"],
        "start_date": run["start_date"],
        "end_date": run["end_date"],
        "queued_at": None,
        "logical_date": None,
        "run_after": None,
        "version": None,
        "note": None,
    }
