"""Tasks of a run in detail, as Airflow's REST API tells them: XComs, tries, errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from temporal_airflow_nb.client.rest.grid import moment, task_row, tries_of
from temporal_airflow_nb.client.rest.http import RestApi, path_of
from temporal_airflow_nb.client.rest.logs import find, logs
from temporal_airflow_nb.display.model import shorten
from temporal_airflow_nb.logs import task_error

_LOG_LINES: Final = 20
_XCOM_CHARS: Final = 2_000


def xcoms(api: RestApi, dag_id: str, run_id: str) -> dict[str, Any]:
    """Return a run's XComs, as Airflow's API deserialises them."""
    return {"xcoms": _xcoms(api, dag_id, run_id, "~")}


def _xcoms(
    api: RestApi, dag_id: str, run_id: str, task_id: str, map_index: int | None = None
) -> list[dict[str, Any]]:
    base = path_of("dags", dag_id, "dagRuns", run_id, "taskInstances")
    entries = api.pages(f"{base}/{path_of(task_id)}/xcomEntries", "xcom_entries", map_index_filter=map_index)
    told = []
    for entry in entries:
        path = f"{base}/{path_of(entry['task_id'], 'xcomEntries', entry['key'])}"
        value = api.get(path, map_index=entry["map_index"], deserialize=True)["value"]
        told.append(
            {
                "task_id": entry["task_id"],
                "map_index": entry["map_index"],
                "key": entry["key"],
                "value": value,
                "timestamp": moment(entry["timestamp"]),
            }
        )
    return sorted(told, key=lambda row: (row["timestamp"], row["task_id"], row["map_index"], row["key"]))


def task(
    api: RestApi, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
) -> dict[str, Any]:
    """Return what is known of a try of a task, the latest one where ``try_number`` is None."""
    ti = find(api, dag_id, run_id, task_id, map_index)
    tries = [task_row(one) | {"hostname": one["hostname"] or ""} for one in tries_of(api, ti)]
    number = try_number or ti["try_number"]
    told = next((one for one in tries if one["try_number"] == number), task_row(ti))
    lines = logs(api, dag_id, run_id, task_id, map_index, number)["lines"] if number else []
    failure = task_error.find_failure(lines) if told["state"] in ("failed", "up_for_retry") else None
    names = ("try_number", "state", "queued_dttm", "start_date", "end_date", "duration", "hostname")
    return {
        "task_id": task_id,
        "map_index": map_index,
        "try_number": number,
        "state": told["state"],
        "operator": told["operator"],
        "rendered": ti.get("rendered_fields") or {},
        "xcoms": [
            {"key": one["key"], "value": shorten(_text(one["value"]), _XCOM_CHARS)}
            for one in _xcoms(api, dag_id, run_id, task_id, map_index)
        ],
        "tries": [{name: one[name] for name in names} for one in tries],
        "error": None if failure is None else _error(failure),
        "log": task_error.last_lines(lines, failure, number, _LOG_LINES),
        "next_retry_at": None,
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _error(failure: Mapping[str, Any]) -> dict[str, Any]:
    frames = [
        {
            "filename": frame["filename"],
            "lineno": frame["lineno"],
            "name": frame["name"],
            "line": "",
            "cell": None,
            "user": not task_error.is_library(frame["filename"]),
        }
        for frame in task_error.failure_frames(failure)
    ]
    return {**task_error.describe_failure(failure), "frames": frames}
