"""Lists the workflows of runs, and queries them: what is known about runs through Temporal alone.

A run's workflow has several executions if the run was cleared, or if a long history was continued as new. All of this
runs in the event loop of the client of Temporal.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowQueryFailedError
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from temporal_airflow_nb.client.temporal.grid import WorkflowGrid
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.errors import (
    DagNotFoundError,
    RunNotFoundError,
    ServiceUnavailableError,
    UnavailableHereError,
)
from temporal_airflow_nb.messages.runs import RunRow
from temporal_airflow_nb.orchestration.workflow.grid_encoding import UnreadableGridError
from temporal_airflow_nb.orchestration.workflow.models import DEEP_WORKFLOW

_DAG_ID = SearchAttributeKey.for_keyword("AirflowDagId")
_RUN_ID = SearchAttributeKey.for_keyword("AirflowRunId")
_STATE = SearchAttributeKey.for_keyword("AirflowState")
_QUERY_TIMEOUT = timedelta(seconds=10)
# The status of a query to which no worker has answered.
_NO_WORKER = (
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
)
# The number of ids that an error lists.
_SHOWN = 5


async def executions(
    client: Client, dag_id: str | None, limit: int | None, state: str | None = None
) -> list[WorkflowExecution]:
    """Return the latest execution of each of the latest runs, newest first."""
    conditions = [f"WorkflowType = '{DEEP_WORKFLOW}'"]
    conditions += [f"AirflowDagId = {_quoted(dag_id)}"] if dag_id is not None else []
    seen: set[str] = set()
    runs: list[WorkflowExecution] = []
    latest: list[datetime] = []
    # Temporal lists running executions first, then the others, the last to end first. Once an execution has ended
    # before the oldest of the chosen runs started, all executions after it in the list started earlier still.
    async for execution in _list(client, " AND ".join(conditions)):
        if len(latest) == limit and execution.close_time and execution.close_time < latest[0]:
            break
        # A run that was cleared or continued as new has several executions, listed newest first.
        if execution.id in seen or execution.typed_search_attributes.get(_RUN_ID) is None:
            continue
        seen.add(execution.id)
        if state in (None, state_of(execution)):
            runs.append(execution)
            if limit is not None:
                heapq.heappush(latest, execution.start_time)
                if len(latest) > limit:
                    heapq.heappop(latest)
    runs.sort(key=lambda execution: execution.start_time, reverse=True)
    return runs if limit is None else runs[:limit]


async def _list(client: Client, query: str) -> AsyncIterator[WorkflowExecution]:
    async for execution in client.list_workflows(query):
        yield execution


def ids_of(execution: WorkflowExecution) -> tuple[str, str]:
    """Return the DAG id and the run id of a run's workflow."""
    attributes = execution.typed_search_attributes
    return attributes.get(_DAG_ID) or "", attributes.get(_RUN_ID) or ""


def state_of(execution: WorkflowExecution) -> str:
    """Return the state of a run, from its workflow's search attributes."""
    if execution.status == WorkflowExecutionStatus.RUNNING:
        return "running"
    return execution.typed_search_attributes.get(_STATE) or "failed"


async def check_dag(client: Client, dag_id: str) -> None:
    """Raise if Temporal has no run of a DAG."""
    async for _ in _list(client, f"WorkflowType = '{DEEP_WORKFLOW}' AND AirflowDagId = {_quoted(dag_id)}"):
        return
    known = sorted({ids_of(execution)[0] for execution in await executions(client, None, 100)})
    raise DagNotFoundError(
        f"Temporal has no run of a DAG {dag_id!r}.",
        hint=f"It has runs of: {', '.join(known[:_SHOWN])}." if known else "It has no run of any DAG.",
        dag_id=dag_id,
    )


async def grid_of(client: Client, dag_id: str, run_id: str, execution: str | None = None) -> WorkflowGrid:
    """Query the grid of a run's workflow.

    Raises
    ------
    RunNotFoundError
        Temporal has no such workflow.
    ServiceUnavailableError
        No worker answers.
    UnavailableHereError
        The worker that answers doesn't have this query.
    """
    handle = client.get_workflow_handle(workflow_id(dag_id, run_id), run_id=execution)
    try:
        answer = await handle.query("grid", rpc_timeout=_QUERY_TIMEOUT)
    except WorkflowQueryFailedError as error:
        raise UnavailableHereError(
            f"The workers can't report the grid of {dag_id} {run_id}: {error}.",
            hint="They may run an older version: upgrade them.",
            op="grid",
        ) from error
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise await no_run(client, dag_id, run_id) from error
        if error.status in _NO_WORKER:
            raise ServiceUnavailableError(
                f"No worker answers for {dag_id} {run_id}: {error.message}",
                hint="Start one: `temporal-airflow worker`.",
                service="worker",
            ) from error
        raise
    try:
        return WorkflowGrid(answer)
    # Whoever may write to Temporal can be the worker that answers, and answer with anything.
    except (
        UnreadableGridError,
        AttributeError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise UnavailableHereError(
            f"The answer about the grid of {dag_id} {run_id} can't be read: {error}.",
            hint="A worker of another version, or of another program, may have sent it.",
            op="grid",
        ) from error


async def no_run(client: Client, dag_id: str, run_id: str) -> RunNotFoundError:
    """Return the error for a run that Temporal doesn't have; its hint lists the latest runs."""
    known = [ids_of(execution)[1] for execution in await executions(client, dag_id, _SHOWN)]
    latest = f"Its latest are: {', '.join(known)}." if known else "It has none of this DAG."
    return RunNotFoundError(
        f"Temporal has no run {run_id!r} of DAG {dag_id!r}.",
        hint=f"{latest} A queued run has no workflow yet, and Temporal drops runs that ended long ago.",
        dag_id=dag_id,
        run_id=run_id,
    )


def _quoted(text: str | None) -> str:
    escaped = (text or "").replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def describe(execution: WorkflowExecution) -> RunRow:
    """Return a run as far as the list of workflows knows it."""
    dag_id, run_id = ids_of(execution)
    return {
        "dag_id": dag_id,
        "run_id": run_id,
        "workflow_id": execution.id,
        "state": state_of(execution),
        "run_type": _run_type(run_id),
        "start_date": execution.start_time.isoformat(),
        "end_date": execution.close_time.isoformat() if execution.close_time else None,
    }


def _run_type(run_id: str) -> str | None:
    kind, separator, _ = run_id.partition("__")
    return kind if separator else None
