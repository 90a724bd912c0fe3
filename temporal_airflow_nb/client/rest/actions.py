"""What a user does to runs through Airflow's REST API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from temporal_airflow_nb.client.rest.http import RestApi, path_of
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import DagNotFoundError, RunNotFoundError, UnavailableHereError


def submit(
    api: RestApi,
    dag_id: str | None = None,
    path: str | None = None,
    conf: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    logical_date: str | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Trigger a DAG that Airflow knows; a file can't be handed to it."""
    if path is not None or dag_id is None:
        raise UnavailableHereError(
            "A DAG's file can't be handed to Airflow through its REST API.",
            hint='Put the file where that Airflow looks for DAGs, then use .trigger("dag_id").',
            op="submit",
        )
    if refused := sorted(name for name, value in others.items() if value is not None):
        raise UnavailableHereError(
            f"Not through Airflow's REST API: {', '.join(refused)}.", hint="Leave it out.", op="submit"
        )
    body = {"dag_run_id": run_id, "logical_date": logical_date, "conf": dict(conf or {})}
    try:
        run = api.call("POST", path_of("dags", dag_id, "dagRuns"), body)
    except RunNotFoundError as error:
        raise DagNotFoundError(error.message, hint=error.hint, dag_id=dag_id) from None
    made = run["dag_run_id"]
    return {"dag_id": dag_id, "run_id": made, "workflow_id": workflow_id(dag_id, made)}


def cancel(api: RestApi, dag_id: str, run_id: str, **_: Any) -> dict[str, Any]:
    """End a run as "mark failed" does; one that has ended stays as it is."""
    run = api.get(path_of("dags", dag_id, "dagRuns", run_id))
    if run["state"] in FINAL_RUN_STATES:
        return _done(dag_id, run_id, run["state"], [])
    return mark(api, dag_id, run_id, "failed")


def mark(
    api: RestApi,
    dag_id: str,
    run_id: str,
    state: str,
    task_ids: Sequence[str] | None = None,
    map_indexes: Sequence[int] | None = None,
    upstream: bool = False,
    downstream: bool = False,
) -> dict[str, Any]:
    """Set the state of a run, or of some of its tasks."""
    path = path_of("dags", dag_id, "dagRuns", run_id)
    before = _states(api, dag_id, run_id)
    if task_ids is None:
        api.call("PATCH", path, {"state": state})
    wanted = {"new_state": state, "include_upstream": upstream, "include_downstream": downstream}
    for task_id in task_ids or ():
        for index in map_indexes or (None,):
            mapped = () if index is None else (str(index),)
            api.call("PATCH", f"{path}/{path_of('taskInstances', task_id, *mapped)}", wanted)
    after = _states(api, dag_id, run_id)
    affected = [list(key) for key, found in after.items() if before.get(key) != found]
    return _done(dag_id, run_id, api.get(path)["state"], affected)


def clear(
    api: RestApi,
    dag_id: str,
    run_id: str,
    task_ids: Sequence[str] | None = None,
    map_indexes: Sequence[int] | None = None,
    upstream: bool = False,
    downstream: bool = False,
    only_failed: bool = False,
    latest_version: bool | None = None,
) -> dict[str, Any]:
    """Have tasks, or the whole run, run again."""
    chosen: list[Any] | None = None if task_ids is None else list(task_ids)
    if task_ids is not None and map_indexes:
        chosen = [[task_id, index] for task_id in task_ids for index in map_indexes]
    body = {
        "dry_run": False,
        "dag_run_id": run_id,
        "task_ids": chosen,
        "only_failed": only_failed,
        "include_upstream": upstream,
        "include_downstream": downstream,
        "reset_dag_runs": True,
        "run_on_latest_version": latest_version,
    }
    answer = api.call("POST", path_of("dags", dag_id, "clearTaskInstances"), body)
    affected = [[ti["task_id"], ti["map_index"]] for ti in answer["task_instances"]]
    state = api.get(path_of("dags", dag_id, "dagRuns", run_id))["state"]
    return _done(dag_id, run_id, state, affected)


def respond(
    api: RestApi,
    dag_id: str,
    run_id: str,
    task_id: str,
    options: Sequence[str],
    map_index: int = -1,
    params_input: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Answer a task that waits for a person."""
    path = path_of("dags", dag_id, "dagRuns", run_id, "taskInstances", task_id, str(map_index))
    body = {"chosen_options": list(options), "params_input": dict(params_input or {})}
    return api.call("PATCH", f"{path}/hitlDetails", body)


def _states(api: RestApi, dag_id: str, run_id: str) -> dict[tuple[str, int], Any]:
    path = path_of("dags", dag_id, "dagRuns", run_id, "taskInstances")
    found = api.pages(path, "task_instances", order_by="id")
    return {(ti["task_id"], ti["map_index"]): (ti["state"], ti["try_number"]) for ti in found}


def _done(dag_id: str, run_id: str, state: str, affected: list[Any]) -> dict[str, Any]:
    return {"dag_id": dag_id, "run_id": run_id, "state": state, "affected": affected}
