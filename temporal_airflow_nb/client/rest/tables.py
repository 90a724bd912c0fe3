"""Lists and tables of runs, tries, assets, DAGs and pools, through Airflow's REST API."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from temporal_airflow_nb.client.rest.grid import moment, run_row, task_row, tries_of
from temporal_airflow_nb.client.rest.http import ApiObject, RestApi, path_of
from temporal_airflow_nb.client.rows import as_table, check_run_state
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.errors import (
    DagNotFoundError,
    RunNotFoundError,
    ServiceUnavailableError,
    TemporalAirflowError,
)
from temporal_airflow_nb.messages.runs import RunRow
from temporal_airflow_nb.messages.tables import (
    ASSET_COLUMNS,
    DAG_COLUMNS,
    POOL_COLUMNS,
    RUN_COLUMNS,
    TRY_COLUMNS,
    Table,
)


def runs(api: RestApi, dag_id: str | None, limit: int) -> list[RunRow]:
    """Return the latest runs, newest first."""
    return [
        {
            "dag_id": owner,
            "run_id": row["run_id"],
            "workflow_id": workflow_id(owner, row["run_id"]),
            "state": row["state"],
            "run_type": row["run_type"],
            "start_date": row["start_date"],
            "end_date": row["end_date"],
        }
        for owner, row in ((run["dag_id"], run_row(run)) for run in _read_runs(api, dag_id, None, limit))
    ]


def runs_table(api: RestApi, dag_id: str | None, state: str | None, limit: int | None) -> Table:
    """Return the latest runs, newest first."""
    check_run_state(state)
    try:
        rows = [{"dag_id": run["dag_id"], **run_row(run)} for run in _read_runs(api, dag_id, state, limit)]
    except RunNotFoundError as error:
        raise DagNotFoundError(error.message, hint="`ta.dags()` lists the DAGs.", dag_id=dag_id) from None
    return as_table(rows, RUN_COLUMNS)


def _read_runs(api: RestApi, dag_id: str | None, state: str | None, limit: int | None) -> Iterable[ApiObject]:
    path = path_of("dags", dag_id or "~", "dagRuns")
    return api.pages(path, "dag_runs", most=limit, order_by="-id", state=state)


def tries_table(api: RestApi, instances: Iterable[tuple[ApiObject, bool]]) -> Table:
    """Return all tries of task instances, of which each comes with whether it was tried before."""
    tries = chain.from_iterable(
        tries_of(api, ti) if was_tried else [ti] for ti, was_tried in instances if ti["try_number"] > 0
    )
    rows = [{**task_row(one), "hostname": one["hostname"], "queue": one["queue"]} for one in tries]
    return as_table(rows, TRY_COLUMNS)


def assets_table(api: RestApi, dag_id: str, run_id: str) -> Table:
    """Return the asset events that created a run, and those that its tasks produced."""
    run = path_of("dags", dag_id, "dagRuns", run_id, "upstreamAssetEvents")
    consumed = api.get(run)["asset_events"]
    produced = api.pages(
        "assets/events", "asset_events", source_dag_id=dag_id, source_run_id=run_id, order_by="timestamp"
    )
    rows = [_event("consumed", event) for event in sorted(consumed, key=lambda event: event["id"])]
    return as_table([*rows, *(_event("produced", event) for event in produced)], ASSET_COLUMNS)


def _event(direction: str, event: ApiObject) -> dict[str, object]:
    return {
        "direction": direction,
        "asset": event["name"],
        "uri": event["uri"],
        "group": event["group"],
        "timestamp": moment(event["timestamp"]),
        "task_id": event["source_task_id"],
        "map_index": event["source_map_index"],
        "source_dag_id": event["source_dag_id"],
        "source_run_id": event["source_run_id"],
        "extra": event["extra"],
        "partition_key": event["partition_key"],
    }


def dags_table(api: RestApi) -> Table:
    """Return the DAGs that Airflow knows, except stale ones, by id."""
    versions: dict[str, int] = {}
    for version in api.pages(path_of("dags", "~", "dagVersions"), "dag_versions", order_by="id"):
        known = versions.get(version["dag_id"], 0)
        versions[version["dag_id"]] = max(known, version["version_number"])
    latest = _latest_runs(api)
    rows = []
    for dag in api.pages("dags", "dags", exclude_stale=True, order_by="dag_id"):
        run = latest.get(dag["dag_id"], {})
        rows.append(
            {
                **dag,
                "schedule": dag["timetable_summary"],
                "next_run": moment(dag["next_dagrun_run_after"]),
                "tags": sorted(tag["name"] for tag in dag["tags"]),
                "owners": ", ".join(dag["owners"]),
                "file": dag["relative_fileloc"] or dag["fileloc"],
                "bundle": dag["bundle_name"],
                "version": versions.get(dag["dag_id"]),
                "last_run_id": run.get("run_id"),
                "last_run_state": run.get("state"),
                "last_run_start": moment(run.get("start_date")),
            }
        )
    return as_table(rows, DAG_COLUMNS)


def _latest_runs(api: RestApi) -> dict[str, ApiObject]:
    """Return the latest run of each DAG, or nothing if Airflow doesn't have this API."""
    try:
        found = list(api.pages("dags", "dags", root="ui", dag_runs_limit=1, order_by="dag_id"))
    except ServiceUnavailableError:
        raise
    except TemporalAirflowError:
        # This API is private to Airflow's own list of DAGs: another version of Airflow may not have it.
        return {}
    return {dag["dag_id"]: run for dag in found for run in dag["latest_dag_runs"]}


def pools_table(api: RestApi) -> Table:
    """Return the pools and how their slots are used."""
    rows: list[ApiObject] = []
    for pool in api.pages("pools", "pools", order_by="id"):
        used = {name: pool[f"{name}_slots"] for name in ("running", "queued", "scheduled", "deferred")}
        open_slots = None if pool["slots"] < 0 else pool["open_slots"]
        rows.append({**pool, **used, "pool": pool["name"], "open": open_slots})
    return as_table(sorted(rows, key=lambda row: str(row["pool"])), POOL_COLUMNS)
