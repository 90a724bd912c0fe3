"""Tables for frames, through Airflow's REST API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from temporal_airflow_nb.client.rest.grid import moment, run_row, task_row, tries_of
from temporal_airflow_nb.client.rest.http import RestApi, path_of
from temporal_airflow_nb.client.rows import as_columns, check_run_state
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.errors import (
    DagNotFoundError,
    RunNotFoundError,
    ServiceUnavailableError,
    TemporalAirflowError,
)

_RUNS: Final = (
    "dag_id",
    "run_id",
    "state",
    "run_type",
    "logical_date",
    "run_after",
    "queued_at",
    "start_date",
    "end_date",
    "version",
    "note",
)
_TRIES: Final = (
    "task_id",
    "map_index",
    "try_number",
    "state",
    "operator",
    "queued_dttm",
    "start_date",
    "end_date",
    "duration",
    "hostname",
    "pool",
    "queue",
)
_ASSETS: Final = (
    "direction",
    "asset",
    "uri",
    "group",
    "timestamp",
    "task_id",
    "map_index",
    "source_dag_id",
    "source_run_id",
    "extra",
    "partition_key",
)
_DAGS: Final = (
    "dag_id",
    "is_paused",
    "schedule",
    "next_run",
    "tags",
    "owners",
    "file",
    "bundle",
    "version",
    "last_run_id",
    "last_run_state",
    "last_run_start",
    "has_import_errors",
    "description",
)
_POOLS: Final = (
    "pool",
    "slots",
    "running",
    "queued",
    "scheduled",
    "deferred",
    "open",
    "include_deferred",
    "description",
)


def runs(api: RestApi, dag_id: str | None = None, limit: int | None = 100) -> dict[str, Any]:
    """Return the latest runs, newest first."""
    names = ("dag_id", "run_id", "state", "run_type", "start_date", "end_date")
    found = [
        {**{name: row[name] for name in names}, "workflow_id": workflow_id(row["dag_id"], row["run_id"])}
        for row in _runs(api, dag_id, None, limit)
    ]
    return {"runs": found}


def runs_columns(
    api: RestApi, dag_id: str | None = None, state: str | None = None, limit: int | None = 100
) -> dict[str, Any]:
    """Return the latest runs, newest first, column by column."""
    check_run_state(state)
    try:
        return as_columns(_runs(api, dag_id, state, limit), _RUNS)
    except RunNotFoundError as error:
        raise DagNotFoundError(
            error.message, hint="`ta.dags()` lists those that there are.", dag_id=dag_id
        ) from None


def _runs(api: RestApi, dag_id: str | None, state: str | None, limit: int | None) -> list[dict[str, Any]]:
    path = path_of("dags", dag_id or "~", "dagRuns")
    found = api.pages(path, "dag_runs", most=limit, order_by="-id", state=state)
    return [{"dag_id": run["dag_id"], **run_row(run)} for run in found]


def tries(api: RestApi, instances: Iterable[tuple[Mapping[str, Any], bool]]) -> dict[str, Any]:
    """Return all tries of task instances; each comes with whether it was tried before."""
    rows = []
    for ti, tried_before in instances:
        if ti["try_number"] > 0:
            told = tries_of(api, ti) if tried_before else [ti]
            rows += [{**task_row(one), "hostname": one["hostname"], "queue": one["queue"]} for one in told]
    return as_columns(rows, _TRIES)


def assets(api: RestApi, dag_id: str, run_id: str) -> dict[str, Any]:
    """Return the asset events that a run was created by, and those that its tasks produced."""
    run = path_of("dags", dag_id, "dagRuns", run_id, "upstreamAssetEvents")
    consumed = api.get(run)["asset_events"]
    produced = api.pages(
        "assets/events", "asset_events", source_dag_id=dag_id, source_run_id=run_id, order_by="timestamp"
    )
    rows = [_event("consumed", event) for event in sorted(consumed, key=lambda event: event["id"])]
    return as_columns([*rows, *(_event("produced", event) for event in produced)], _ASSETS)


def _event(direction: str, event: Mapping[str, Any]) -> dict[str, Any]:
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


def dags(api: RestApi) -> dict[str, Any]:
    """Return the DAGs that Airflow knows and still finds, by id."""
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
    return as_columns(rows, _DAGS)


def _latest_runs(api: RestApi) -> dict[str, Mapping[str, Any]]:
    """Return the latest run of each DAG, as far as what Airflow's own list of DAGs is made of tells it."""
    try:
        found = list(api.pages("dags", "dags", root="ui", dag_runs_limit=1, order_by="dag_id"))
    except ServiceUnavailableError:
        raise
    except TemporalAirflowError:
        return {}
    return {dag["dag_id"]: run for dag in found for run in dag["latest_dag_runs"]}


def pools(api: RestApi) -> dict[str, Any]:
    """Return the pools and how their slots are used."""
    rows = []
    for pool in api.pages("pools", "pools", order_by="id"):
        used = {name: pool[f"{name}_slots"] for name in ("running", "queued", "scheduled", "deferred")}
        open_slots = None if pool["slots"] < 0 else pool["open_slots"]
        rows.append({**pool, **used, "pool": pool["name"], "open": open_slots})
    return as_columns(sorted(rows, key=lambda row: row["pool"]), _POOLS)
