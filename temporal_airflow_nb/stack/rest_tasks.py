"""Tasks of a run in detail, as Airflow's REST API tells them: XComs, logs, tries, errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from temporal_airflow_nb.display.text import cut
from temporal_airflow_nb.errors import RunNotFoundError
from temporal_airflow_nb.stack.rest_api import RestApi, path_of
from temporal_airflow_nb.stack.rest_grid import moment, task_row
from temporal_airflow_nb.task_log import TaskLog, log_lines, traceback_lines

_LOG_LINES: Final = 20
_XCOM_CHARS: Final = 2_000
_LIBRARY = re.compile(r"[/\\](?:site|dist)-packages[/\\]|[/\\]lib[/\\]python\d\.\d+[/\\]|^<frozen ")


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


def logs(
    api: RestApi, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
) -> dict[str, Any]:
    """Return the log of one try, the latest one where ``try_number`` is None."""
    ti = _find(api, dag_id, run_id, task_id, map_index)
    number = try_number or ti["try_number"]
    path = path_of("dags", dag_id, "dagRuns", run_id, "taskInstances", task_id, "logs", str(number))
    try:
        answer = api.get(path, map_index=map_index, full_content=True)
    except RunNotFoundError:
        raise RunNotFoundError(
            f"task {task_id!r} has no try {number}",
            hint=f"It had {ti['try_number']}.",
            task_id=task_id,
        ) from None
    lines = [{"event": line} if isinstance(line, str) else line for line in answer["content"]]
    return {"try_number": number, "lines": lines}


def log_tail(
    api: RestApi,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int = -1,
    try_number: int | None = None,
    after: int = 0,
) -> dict[str, Any]:
    """Return what a log has after its first ``after`` records; each call reads all of it."""
    ti = _find(api, dag_id, run_id, task_id, map_index)
    over = ti["state"] not in ("running", "queued", "restarting") or (try_number or 0) < ti["try_number"]
    told = logs(api, dag_id, run_id, task_id, map_index, try_number)
    lines = log_lines(told["lines"])[after:]
    return {"lines": lines, "next": after + len(lines), "ended": over}


def task(
    api: RestApi, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
) -> dict[str, Any]:
    """Return what is known of a try of a task, the latest one where ``try_number`` is None."""
    ti = _find(api, dag_id, run_id, task_id, map_index)
    tries = [
        task_row(one) | {"hostname": one["hostname"] or ""}
        for one in tries_of(api, dag_id, run_id, task_id, map_index)
    ]
    number = try_number or ti["try_number"]
    told = next((one for one in tries if one["try_number"] == number), task_row(ti))
    lines = logs(api, dag_id, run_id, task_id, map_index, number)["lines"] if number else []
    failed = told["state"] in ("failed", "up_for_retry")
    names = ("try_number", "state", "queued_dttm", "start_date", "end_date", "duration", "hostname")
    return {
        "task_id": task_id,
        "map_index": map_index,
        "try_number": number,
        "state": told["state"],
        "operator": told["operator"],
        "rendered": ti.get("rendered_fields") or {},
        "xcoms": [
            {"key": one["key"], "value": cut(_text(one["value"]), _XCOM_CHARS)}
            for one in _xcoms(api, dag_id, run_id, task_id, map_index)
        ],
        "tries": [{name: one[name] for name in names} for one in tries],
        "error": _error(lines) if failed else None,
        "log": TaskLog(lines, number).splitlines()[-_LOG_LINES:],
        "next_retry_at": None,
    }


def _find(api: RestApi, dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
    base = path_of("dags", dag_id, "dagRuns", run_id, "taskInstances", task_id)
    try:
        return api.get(base if map_index < 0 else f"{base}/{map_index}")
    except RunNotFoundError as error:
        raise RunNotFoundError(
            f"run {run_id!r} has no task {task_id!r} with map_index {map_index}: {error.message}",
            hint="Check the task_id; a mapped task needs a map_index.",
            task_id=task_id,
        ) from None


def tries_of(api: RestApi, dag_id: str, run_id: str, task_id: str, map_index: int) -> list[Mapping[str, Any]]:
    """Return the tries of a task instance as the API tells them, the first one first."""
    mapped = (str(map_index),) if map_index >= 0 else ()
    path = path_of("dags", dag_id, "dagRuns", run_id, "taskInstances", task_id, *mapped, "tries")
    found = api.get(path)["task_instances"]
    return sorted((one for one in found if one["try_number"] > 0), key=lambda one: one["try_number"])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _error(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    failure = next((line for line in reversed(lines) if line.get("error_detail")), None)
    if failure is None:
        return None
    details = failure["error_detail"]
    return {
        "type": details[0].get("exc_type"),
        "value": details[0].get("exc_value"),
        "frames": [
            {
                "filename": frame["filename"],
                "lineno": frame["lineno"],
                "name": frame["name"],
                "line": "",
                "cell": None,
                "user": not _LIBRARY.search(frame["filename"]),
            }
            for frame in details[0].get("frames") or ()
        ],
        "text": "\n".join(traceback_lines(details)),
    }
