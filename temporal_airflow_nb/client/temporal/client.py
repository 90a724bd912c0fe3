"""The door to runs through Temporal alone, where Airflow's database and API are out of reach."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from types import MappingProxyType
from typing import Any, Final

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from temporal_airflow_nb.client.rows import TASK_COLUMNS, as_columns, check_run_state
from temporal_airflow_nb.client.temporal.event_loop import EventLoopThread
from temporal_airflow_nb.client.temporal.executions import check_dag, described, executions, ids_of, no_run
from temporal_airflow_nb.client.temporal.history import events_of
from temporal_airflow_nb.client.temporal.run_view import RunView
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.config.temporal import check_namespace
from temporal_airflow_nb.errors import ServiceUnavailableError, UnavailableHereError
from temporal_airflow_nb.orchestration.workflow.models import FINAL_RUN_STATES

_VIEWS = 16
_RUN_COLUMNS = ("dag_id", "run_id", "state", "run_type", "start_date", "end_date")
_NEEDED = {
    "submit": "To run a DAG",
    "logs": "To read a log",
    "log_tail": "To read a log",
    "xcoms": "To read XComs",
    "task": "To look at a task's fields, XComs and log",
    "tries": "To list all tries",
    "assets": "To list asset events",
    "dags": "To list DAGs",
    "pools": "To list pools",
    "clear": "To clear tasks",
    "mark": "To set a state",
    "respond": "To answer a task",
}


class WorkflowClient:
    """
    Calls the operations that Temporal alone can answer; a client like ``GatewayClient``.

    Everything comes from the memory of the runs' workflows, so it is what Airflow's database holds, except that

    - a run appears when its workflow starts: there are no queued ones, and none that Temporal has dropped; the latest
      are those whose workflows started last;
    - tasks have no pool, nodes no documentation, runs no note, and there are no links;
    - a duration is the end minus the start of a try, which Airflow rounds to milliseconds on SQLite;
    - a task is running from when it is handed to the workers; the exact times of a try are told at its end;
    - what is changed in Airflow shows when its workflow has been told, at the latest with its next look;
    - of runs by the list alone, ``start_date`` and ``end_date`` are those of the workflow;
    - of a DAG with very many tasks (300 kB of structure, compressed) the grid is flat, in alphabetical order; of
      more than 25,000 task instances, or about 10,000 that change at once, the times aren't told.

    Safe to use from several threads. No Airflow is needed.

    Parameters
    ----------
    profile
        Name of a profile of Temporal's configuration file; ``$TEMPORAL_PROFILE``, or the default one, if None.
    patience
        Seconds for which a Temporal or a worker that doesn't answer is tried again.
    """

    can_act = False
    """Whether a page offers buttons that clear and mark tasks."""
    refused: Final = MappingProxyType(
        {
            op: f"{_NEEDED[op]}, Airflow's database or its API is needed."
            for op in ("submit", "clear", "mark", "task", "log_tail")
        }
    )
    """What can't be asked for, by operation, and why."""

    def __init__(self, profile: str | None = None, *, patience: float = 20.0) -> None:
        self.patience = patience
        self.production: str | None = None
        self.profile = profile
        self._loop = EventLoopThread(**({} if profile is None else {"profile": profile}))
        self._views: OrderedDict[tuple[str, str], RunView] = OrderedDict()

    def __repr__(self) -> str:
        return f"WorkflowClient({self.profile!r})" if self.profile else "WorkflowClient()"

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
        """Drop the connection; the next call makes a new one."""
        self._views.clear()
        self._loop.close()

    def call(self, op: str, *, timeout: float = 60.0, **body: Any) -> dict[str, Any]:
        """Call an operation and return its answer, as the gateway gives it.

        Parameters
        ----------
        op
            ``run``, ``watch``, ``feed``, ``runs``, ``runs_columns``, ``tasks_columns``, ``events`` or ``cancel``.
        timeout
            Seconds to wait for the answer; for ``watch`` and ``feed``, how long it may be held back.
        **body
            Arguments of the operation.

        Raises
        ------
        UnavailableHereError
            Temporal alone can't answer it.
        RunNotFoundError, DagNotFoundError
            Temporal knows no such run, or no run of such a DAG.
        ServiceUnavailableError
            Temporal can't be reached, or no worker answers.
        """
        operation: Callable[..., Coroutine[Any, Any, dict[str, Any]]] | None = getattr(
            self, f"_op_{op}", None
        )
        if operation is None:
            raise UnavailableHereError(
                f"{_NEEDED.get(op, f'For `{op}`')}, Airflow's database or its API is needed; this process is "
                "connected to Temporal alone.",
                hint='Set AIRFLOW_HOME or AIRFLOW__DATABASE__SQL_ALCHEMY_CONN, or use connect(airflow="https://…").',
                op=op,
            )
        if op in ("watch", "feed"):
            body["timeout"] = timeout
        give_up = time.monotonic() + self.patience
        pause = 0.1
        while True:
            try:
                return self._loop.run(lambda client: operation(client, **body), timeout)
            except ServiceUnavailableError:
                if time.monotonic() + pause > give_up:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def _op_run(self, client: Client, *, dag_id: str, run_id: str) -> dict[str, Any]:
        view = self._view(client, dag_id, run_id)
        await view.refresh()
        return _snapshot(view)

    async def _op_watch(
        self,
        client: Client,
        *,
        dag_id: str,
        run_id: str,
        timeout: float,
        after: str | None = None,
        until_ended: bool = False,
    ) -> dict[str, Any]:
        view = self._view(client, dag_id, run_id)
        clock = asyncio.get_running_loop().time
        end = clock() + timeout
        while True:
            grid = await view.refresh()
            ended = grid.run["state"] in FINAL_RUN_STATES
            if ended or clock() >= end or (not until_ended and view.cursor != after):
                return _snapshot(view)
            await view.wait(end - clock())

    async def _op_feed(
        self,
        client: Client,
        *,
        dag_id: str,
        run_id: str,
        timeout: float,
        runs: int = 14,
        after: str | None = None,
    ) -> dict[str, Any]:
        view = self._view(client, dag_id, run_id)
        clock = asyncio.get_running_loop().time
        end = clock() + timeout
        while True:
            await view.refresh(runs)
            answer, is_news = view.changes(after)
            if is_news or clock() >= end:
                return answer
            await view.wait(end - clock())

    async def _op_tasks_columns(self, client: Client, *, dag_id: str, run_id: str) -> dict[str, Any]:
        grid = await self._view(client, dag_id, run_id).refresh()
        return as_columns(grid.in_topological_order(), TASK_COLUMNS)

    async def _op_runs(self, client: Client, *, dag_id: str | None = None, limit: int = 20) -> dict[str, Any]:
        return {"runs": [described(execution) for execution in await executions(client, dag_id, limit)]}

    async def _op_runs_columns(
        self, client: Client, *, dag_id: str | None = None, state: str | None = None, limit: int | None = 100
    ) -> dict[str, Any]:
        check_run_state(state)
        found = [described(execution) for execution in await executions(client, dag_id, limit, state)]
        if dag_id is not None and not found:
            await check_dag(client, dag_id)
        return as_columns(found, _RUN_COLUMNS)

    async def _op_events(self, client: Client, *, dag_id: str, run_id: str) -> dict[str, Any]:
        columns = await events_of(client, dag_id, run_id)
        if not columns["event_id"]:
            raise await no_run(client, dag_id, run_id)
        return {"columns": columns, "rows": len(columns["event_id"])}

    async def _op_cancel(self, client: Client, *, dag_id: str, run_id: str | None = None) -> dict[str, Any]:
        """Cancel the workflow, which then fails the run as Airflow's "mark failed" does; wait for that."""
        if run_id is None:
            found = await executions(client, dag_id, 1)
            if not found:
                await check_dag(client, dag_id)
            run_id = ids_of(found[0])[1]
        view = self._view(client, dag_id, run_id)
        before = await view.refresh()
        tasks = {(task["task_id"], task["map_index"]): task["state"] for task in before.tasks}
        if before.run["state"] not in FINAL_RUN_STATES:
            try:
                await client.get_workflow_handle(workflow_id(dag_id, run_id)).cancel()
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
        snapshot = await self._op_watch(client, dag_id=dag_id, run_id=run_id, timeout=60.0, until_ended=True)
        affected = [
            [task["task_id"], task["map_index"]]
            for task in snapshot["tasks"]
            if tasks.get((task["task_id"], task["map_index"])) != task["state"]
        ]
        return {"dag_id": dag_id, "run_id": run_id, "state": snapshot["state"], "affected": affected}

    def _view(self, client: Client, dag_id: str, run_id: str) -> RunView:
        """Return the view of a run that all callers share; the one that nobody has asked for longest is closed."""
        key = (dag_id, run_id)
        view = self._views.pop(key, None) or RunView(client, dag_id, run_id)
        self._views[key] = view
        while len(self._views) > _VIEWS:
            self._views.popitem(last=False)[1].close()
        return view


def _snapshot(view: RunView) -> dict[str, Any]:
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
        "tasks": [{name: task[name] for name in TASK_COLUMNS} for task in grid.in_topological_order()],
        "links": {},
    }
