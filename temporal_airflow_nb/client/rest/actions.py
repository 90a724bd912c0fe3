"""Triggers, cancels, clears and marks runs, and answers tasks, through Airflow's REST API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from temporal_airflow_nb.client.rest.http import RestApi, path_of
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import DagNotFoundError, RunNotFoundError
from temporal_airflow_nb.messages.requests import ClearTasks, JsonObject, MarkTasks, RespondToTask
from temporal_airflow_nb.messages.runs import ActionResult, HumanAnswer, Triggered


def trigger(api: RestApi, dag_id: str, conf: JsonObject | None, run_id: str | None) -> Triggered:
    """Create a run of a DAG that Airflow knows."""
    body = {"dag_run_id": run_id, "logical_date": None, "conf": conf or {}}
    try:
        run = api.call("POST", path_of("dags", dag_id, "dagRuns"), body)
    except RunNotFoundError as error:
        raise DagNotFoundError(error.message, hint=error.hint, dag_id=dag_id) from None
    created = run["dag_run_id"]
    return {"dag_id": dag_id, "run_id": created, "workflow_id": workflow_id(dag_id, created)}


def cancel(api: RestApi, dag_id: str, run_id: str | None) -> ActionResult:
    """End a run as "mark failed" does; a run that has ended stays as it is."""
    run_id = run_id or _latest(api, dag_id)
    run = api.get(path_of("dags", dag_id, "dagRuns", run_id))
    if run["state"] in FINAL_RUN_STATES:
        return _result(dag_id, run_id, run["state"], [])
    return mark(api, MarkTasks(dag_id, run_id, "failed"))


def mark(api: RestApi, request: MarkTasks) -> ActionResult:
    """Set the state of a run, or of some of its tasks."""
    dag_id, run_id = request.dag_id, request.run_id or _latest(api, request.dag_id)
    path = path_of("dags", dag_id, "dagRuns", run_id)
    before = _states(api, dag_id, run_id)
    if request.task_ids is None:
        api.call("PATCH", path, {"state": request.state})
    body = {
        "new_state": request.state,
        "include_upstream": request.upstream,
        "include_downstream": request.downstream,
    }
    # One request for each task instance, and no transaction around them: if one fails, those before it stay done.
    for task_id in request.task_ids or ():
        for index in request.map_indexes or (None,):
            mapped = () if index is None else (str(index),)
            api.call("PATCH", f"{path}/{path_of('taskInstances', task_id, *mapped)}", body)
    after = _states(api, dag_id, run_id)
    affected = [key for key, state in after.items() if before.get(key) != state]
    return _result(dag_id, run_id, api.get(path)["state"], affected)


def clear(api: RestApi, request: ClearTasks) -> ActionResult:
    """Run tasks, or the whole run, again."""
    dag_id, run_id = request.dag_id, request.run_id or _latest(api, request.dag_id)
    chosen: Sequence[object] | None = request.task_ids
    if request.task_ids is not None and request.map_indexes:
        chosen = [[task_id, index] for task_id in request.task_ids for index in request.map_indexes]
    body = {
        "dry_run": False,
        "dag_run_id": run_id,
        "task_ids": chosen,
        "only_failed": request.only_failed,
        "include_upstream": request.upstream,
        "include_downstream": request.downstream,
        "reset_dag_runs": True,
        "run_on_latest_version": request.latest_version,
    }
    answer = api.call("POST", path_of("dags", dag_id, "clearTaskInstances"), body)
    affected = [(ti["task_id"], ti["map_index"]) for ti in answer["task_instances"]]
    state = api.get(path_of("dags", dag_id, "dagRuns", run_id))["state"]
    return _result(dag_id, run_id, state, affected)


def respond(api: RestApi, request: RespondToTask) -> HumanAnswer:
    """Answer a task that waits for a person."""
    run = path_of("dags", request.dag_id, "dagRuns", request.run_id)
    path = f"{run}/{path_of('taskInstances', request.task_id, str(request.map_index), 'hitlDetails')}"
    body = {"chosen_options": list(request.options), "params_input": request.params_input or {}}
    return cast("HumanAnswer", api.call("PATCH", path, body))


def _latest(api: RestApi, dag_id: str) -> str:
    """Return the id of a DAG's latest run."""
    found = list(api.pages(path_of("dags", dag_id, "dagRuns"), "dag_runs", most=1, order_by="-id"))
    if not found:
        raise RunNotFoundError(f"DAG {dag_id!r} has no run.", hint="Run it first.", dag_id=dag_id)
    return str(found[0]["dag_run_id"])


def _states(api: RestApi, dag_id: str, run_id: str) -> dict[tuple[str, int], Any]:
    path = path_of("dags", dag_id, "dagRuns", run_id, "taskInstances")
    found = api.pages(path, "task_instances", order_by="id")
    return {(ti["task_id"], ti["map_index"]): (ti["state"], ti["try_number"]) for ti in found}


def _result(dag_id: str, run_id: str, state: str, affected: list[tuple[str, int]]) -> ActionResult:
    return {"dag_id": dag_id, "run_id": run_id, "state": state, "affected": affected}
