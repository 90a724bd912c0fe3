"""The client of runs through Temporal alone, if Airflow's database and its API can't be reached.

Runs in the user's process. Callers in any thread pass coroutines to one event loop, which has a thread of its own. Only
coroutines in that loop use the views of runs, so the views need no locks against other threads.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, cast

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from temporal_airflow_nb.client.capabilities import Backend, refusals_of
from temporal_airflow_nb.client.protocol import StackClient
from temporal_airflow_nb.client.rows import as_table, check_run_state
from temporal_airflow_nb.client.temporal.event_loop import EventLoopThread
from temporal_airflow_nb.client.temporal.executions import check_dag, describe, executions, ids_of, no_run
from temporal_airflow_nb.client.temporal.history import events_of
from temporal_airflow_nb.client.temporal.run_view import RunView
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.config.temporal import check_namespace, connect_settings
from temporal_airflow_nb.errors import ServiceUnavailableError
from temporal_airflow_nb.messages.grid import GridChanges, GridTask
from temporal_airflow_nb.messages.requests import GRID_RUNS
from temporal_airflow_nb.messages.runs import ActionResult, RunRow, RunSnapshot, TaskRow
from temporal_airflow_nb.messages.tables import TASK_COLUMNS, Table
from temporal_airflow_nb.orchestration.workflow.models import FINAL_RUN_STATES

T = TypeVar("T")

# Beyond this number, the client closes the view that was used longest ago.
_VIEWS: Final = 16
_COLUMNS: Final = ("dag_id", "run_id", "state", "run_type", "start_date", "end_date")
# Seconds to wait for the end of a run that was cancelled.
_CANCEL_SECONDS: Final = 60.0


class WorkflowClient(StackClient):
    """
    Carries out the operations that Temporal alone can answer.

    All answers come from the memory of the runs' workflows. They agree with Airflow's database, except that

    - a run appears when its workflow starts: there are no queued runs, and no runs that Temporal has dropped; the
      latest runs are those whose workflows started last;
    - tasks have no pool, nodes no documentation, runs no note, and there are no links;
    - Temporal gets no user data: mapped tasks have no label, and the names of tasks and groups are those in their ids;
    - a duration is the end minus the start of a try, which Airflow rounds to milliseconds on SQLite;
    - a task is running as soon as it is handed to the workers; the exact times of a try are known at its end;
    - a change made in Airflow shows after the workflow was notified of it, at the latest with its next pass;
    - in lists of runs, ``start_date`` and ``end_date`` are those of the workflow;
    - the grid of a DAG with very many tasks (300 kB of structure, compressed) is flat, in alphabetical order; times
      are missing in runs with more than 25,000 task instances, or about 10,000 that change at once.

    Safe to use from several threads: everything that asks Temporal runs in one event loop, which copies share. No
    Airflow is needed.

    Parameters
    ----------
    profile
        Name of a profile of Temporal's configuration file; ``$TEMPORAL_PROFILE``, or the default profile, if None.
    retry_for
        Seconds for which a Temporal server or a worker that doesn't answer is tried again.
    timeout
        Seconds to wait for an answer.
    """

    refusals = refusals_of(Backend.TEMPORAL)

    def __init__(self, profile: str | None = None, *, retry_for: float = 20.0, timeout: float = 60.0) -> None:
        self.retry_for = retry_for
        self.timeout = timeout
        self.production: str | None = None
        self.profile = profile
        self._loop = EventLoopThread(**({} if profile is None else {"profile": profile}))
        self._views: OrderedDict[tuple[str, str], RunView] = OrderedDict()

    def __repr__(self) -> str:
        return f"WorkflowClient({self.profile!r})" if self.profile else "WorkflowClient()"

    @property
    def address(self) -> str:
        """``host:port`` of Temporal's server."""
        return str(connect_settings(self.profile)["target_host"])

    def connect(self) -> None:
        """Connect now.

        Raises
        ------
        InvalidInputError
            The settings can't be used, or there is no such namespace.
        ServiceUnavailableError
            Temporal can't be reached.
        """
        self._loop.run(check_namespace, 10.0)

    def close(self) -> None:
        """Close the connection; the next operation opens another."""
        # Their tasks needn't be cancelled here: the loop cancels all of its tasks when it ends.
        self._views.clear()
        self._loop.close()

    def get_run(self, dag_id: str, run_id: str) -> RunSnapshot:
        """Return a run with all its task instances."""

        async def ask(client: Client) -> RunSnapshot:
            view = self._view(client, dag_id, run_id)
            await view.refresh()
            return _snapshot(view)

        return self._run(ask)

    def watch_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        after: str | None = None,
        until_ended: bool = False,
        timeout: float = 30.0,
    ) -> RunSnapshot:
        """Wait for a run to change, or to end; see :meth:`StackClient.watch_run`."""
        return self._run(
            lambda client: self._watch(client, dag_id, run_id, timeout, after, until_ended=until_ended),
            timeout,
        )

    async def _watch(
        self,
        client: Client,
        dag_id: str,
        run_id: str,
        timeout: float,
        after: str | None = None,
        *,
        until_ended: bool = False,
    ) -> RunSnapshot:
        view = self._view(client, dag_id, run_id)
        clock = asyncio.get_running_loop().time
        end = clock() + timeout
        while True:
            grid = await view.refresh()
            ended = grid.run["state"] in FINAL_RUN_STATES
            if ended or clock() >= end or (not until_ended and view.cursor != after):
                return _snapshot(view)
            await view.wait(end - clock())

    def list_runs(self, dag_id: str | None = None, *, limit: int = 100) -> list[RunRow]:
        """Return the latest runs, newest first."""

        async def ask(client: Client) -> list[RunRow]:
            return [describe(execution) for execution in await executions(client, dag_id, limit)]

        return self._run(ask)

    def get_grid_changes(
        self,
        dag_id: str,
        run_id: str,
        *,
        after: str | None = None,
        runs: int = GRID_RUNS,
        timeout: float = 30.0,
    ) -> GridChanges:
        """Wait for a DAG's grid to change; see :meth:`StackClient.get_grid_changes`."""

        async def ask(client: Client) -> GridChanges:
            view = self._view(client, dag_id, run_id)
            clock = asyncio.get_running_loop().time
            end = clock() + timeout
            while True:
                await view.refresh(runs)
                answer, is_news = view.changes(after)
                if is_news or clock() >= end:
                    return answer
                await view.wait(end - clock())

        return self._run(ask, timeout)

    def get_tasks_table(self, dag_id: str, run_id: str) -> Table:
        """Return a run's task instances, in an order in which they can run."""

        async def ask(client: Client) -> Table:
            grid = await self._view(client, dag_id, run_id).refresh()
            return as_table(grid.in_topological_order(), TASK_COLUMNS)

        return self._run(ask)

    def get_runs_table(
        self, dag_id: str | None = None, *, state: str | None = None, limit: int | None = 100
    ) -> Table:
        """Return the latest runs, newest first; all of them if ``limit`` is None."""
        check_run_state(state)

        async def ask(client: Client) -> Table:
            found = [describe(execution) for execution in await executions(client, dag_id, limit, state)]
            if dag_id is not None and not found:
                await check_dag(client, dag_id)
            return as_table(found, _COLUMNS)

        return self._run(ask)

    def cancel_run(self, dag_id: str, run_id: str | None = None) -> ActionResult:
        """Cancel a run's workflow, which fails the run as Airflow's "mark failed" does; wait for that."""
        return self._run(lambda client: self._cancel(client, dag_id, run_id))

    async def _cancel(self, client: Client, dag_id: str, run_id: str | None) -> ActionResult:
        if run_id is None:
            found = await executions(client, dag_id, 1)
            if not found:
                await check_dag(client, dag_id)
            run_id = ids_of(found[0])[1]
        # The states before, from which the affected task instances are found at the end.
        before = await self._view(client, dag_id, run_id).refresh()
        states = {(task["task_id"], task["map_index"]): task["state"] for task in before.tasks}
        if before.run["state"] not in FINAL_RUN_STATES:
            try:
                await client.get_workflow_handle(workflow_id(dag_id, run_id)).cancel()
            except RPCError as error:
                # The workflow has ended meanwhile.
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
        snapshot = await self._watch(client, dag_id, run_id, _CANCEL_SECONDS, until_ended=True)
        affected = [
            (task["task_id"], task["map_index"])
            for task in snapshot["tasks"]
            if states.get((task["task_id"], task["map_index"])) != task["state"]
        ]
        return {"dag_id": dag_id, "run_id": run_id, "state": snapshot["state"], "affected": affected}

    def get_events_table(self, dag_id: str, run_id: str) -> Table:
        """Return the history of a run's workflow."""

        async def ask(client: Client) -> Table:
            events = await events_of(client, dag_id, run_id)
            if not events["rows"]:
                raise await no_run(client, dag_id, run_id)
            return events

        return self._run(ask)

    def _run(self, ask: Callable[[Client], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        """Run a coroutine function in the event loop; repeat it while a service can't be reached."""
        deadline = time.monotonic() + self.retry_for
        pause = 0.1
        while True:
            try:
                return self._loop.run(ask, self.timeout if timeout is None else timeout)
            except ServiceUnavailableError:
                if time.monotonic() + pause > deadline:
                    raise
            # In the caller's thread: the event loop goes on serving other callers.
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _view(self, client: Client, dag_id: str, run_id: str) -> RunView:
        """Return the view of a run, which all callers share. Called in the event loop only."""
        key = (dag_id, run_id)
        view = self._views.pop(key, None) or RunView(client, dag_id, run_id)
        self._views[key] = view
        while len(self._views) > _VIEWS:
            self._views.popitem(last=False)[1].close()
        return view


def _snapshot(view: RunView) -> RunSnapshot:
    grid = view.grid
    assert grid is not None
    return {
        "dag_id": view.dag_id,
        "run_id": view.run_id,
        "workflow_id": workflow_id(view.dag_id, view.run_id),
        "state": grid.run["state"],
        "start_date": grid.run["start_date"],
        "end_date": grid.run["end_date"],
        "version": view.cursor,
        "airflow_state_counts": dict(Counter(task["state"] or "none" for task in grid.tasks)),
        "tasks": [_task_row(task) for task in grid.in_topological_order()],
        "links": {},
    }


def _task_row(task: GridTask) -> TaskRow:
    row: dict[str, object] = dict(task)
    del row["tries"]
    return cast("TaskRow", row)
