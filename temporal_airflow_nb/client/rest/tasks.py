"""Details of tasks from Airflow's REST API: XComs, tries, errors."""

from __future__ import annotations

from typing import Any, Final

from temporal_airflow_nb.client.rest.grid import moment, task_row, tries_of
from temporal_airflow_nb.client.rest.http import ApiObject, RestApi, path_of
from temporal_airflow_nb.client.rest.logs import find, log
from temporal_airflow_nb.display.model import shorten
from temporal_airflow_nb.logs import task_error
from temporal_airflow_nb.messages.tasks import ErrorDetails, TaskDetails, TryRow, XCom

_LOG_LINES: Final = 20
_XCOM_CHARS: Final = 2_000


def xcoms(api: RestApi, dag_id: str, run_id: str, task_id: str, map_index: int | None = None) -> list[XCom]:
    """Return the XComs of a task, or those of a run if ``task_id`` is ``"~"``."""
    base = path_of("dags", dag_id, "dagRuns", run_id, "taskInstances")
    entries = api.pages(f"{base}/{path_of(task_id)}/xcomEntries", "xcom_entries", map_index_filter=map_index)
    found: list[XCom] = []
    for entry in entries:
        path = f"{base}/{path_of(entry['task_id'], 'xcomEntries', entry['key'])}"
        # The list has no values: each needs a request.
        value = api.get(path, map_index=entry["map_index"], deserialize=True)["value"]
        found.append(
            {
                "task_id": entry["task_id"],
                "map_index": entry["map_index"],
                "key": entry["key"],
                "value": value,
                "timestamp": moment(entry["timestamp"]),
            }
        )
    return sorted(
        found, key=lambda xcom: (xcom["timestamp"] or "", xcom["task_id"], xcom["map_index"], xcom["key"])
    )


def task(
    api: RestApi, dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int | None
) -> TaskDetails:
    """Return a try of a task in detail; the latest if ``try_number`` is None."""
    ti = find(api, dag_id, run_id, task_id, map_index)
    tries = tries_of(api, ti)
    number = try_number or ti["try_number"]
    chosen = task_row(next((one for one in tries if one["try_number"] == number), ti))
    lines = log(api, dag_id, run_id, task_id, map_index, number)["lines"] if number else []
    failure = task_error.find_failure(lines) if chosen["state"] in ("failed", "up_for_retry") else None
    return {
        "task_id": task_id,
        "map_index": map_index,
        "try_number": number,
        "state": chosen["state"],
        "operator": chosen["operator"],
        "rendered": ti.get("rendered_fields") or {},
        "xcoms": [
            {"key": xcom["key"], "value": shorten(_text(xcom["value"]), _XCOM_CHARS)}
            for xcom in xcoms(api, dag_id, run_id, task_id, map_index)
        ],
        "tries": [_try_row(one) for one in tries],
        "error": None if failure is None else _error(failure),
        "log": task_error.last_lines(lines, failure, number, _LOG_LINES),
        "next_retry_at": None,
    }


def _try_row(ti: ApiObject) -> TryRow:
    return {
        "try_number": ti["try_number"],
        "state": ti["state"],
        "queued_dttm": moment(ti["queued_when"]),
        "start_date": moment(ti["start_date"]),
        "end_date": moment(ti["end_date"]),
        "duration": ti["duration"],
        "hostname": ti["hostname"] or "",
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _error(failure: ApiObject) -> ErrorDetails:
    return {
        **task_error.describe_failure(failure),
        "frames": [
            {
                "filename": frame["filename"],
                "lineno": frame["lineno"],
                "name": frame["name"],
                "line": "",
                "cell": None,
                "user": not task_error.is_library(frame["filename"]),
            }
            for frame in task_error.failure_frames(failure)
        ],
    }
