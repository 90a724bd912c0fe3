"""Logs of tasks, through Airflow's REST API."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any, Final

from temporal_airflow_nb.client.rest.http import RestApi, path_of
from temporal_airflow_nb.errors import RunNotFoundError
from temporal_airflow_nb.logs.task_log import log_lines

_TAILS: Final = 256
_GOES_ON: Final = ("running", "queued", "restarting", "deferred")


def find(api: RestApi, dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
    """Return what the API tells of a task instance."""
    base = path_of("dags", dag_id, "dagRuns", run_id, "taskInstances", task_id)
    try:
        return api.get(base if map_index < 0 else f"{base}/{map_index}")
    except RunNotFoundError as error:
        raise RunNotFoundError(
            f"run {run_id!r} has no task {task_id!r} with map_index {map_index}: {error.message}",
            hint="Check the task_id; a mapped task needs a map_index.",
            task_id=task_id,
        ) from None


def logs(
    api: RestApi, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
) -> dict[str, Any]:
    """Return the log of one try, the latest one where ``try_number`` is None."""
    ti = find(api, dag_id, run_id, task_id, map_index)
    number = try_number or ti["try_number"]
    lines, _ = _read(api, ti, number)
    return {"try_number": number, "lines": lines}


class RestLogTails:
    """Logs that are read again and again while they grow: Airflow is asked for what it hasn't told yet. Thread-safe."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[tuple[Any, ...], str] = OrderedDict()
        self._lock = Lock()

    def read(
        self,
        api: RestApi,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int = -1,
        try_number: int | None = None,
        after: int = 0,
    ) -> dict[str, Any]:
        """Return the lines after the first ``after`` ones, and whether there can be no more."""
        ti = find(api, dag_id, run_id, task_id, map_index)
        number = try_number or ti["try_number"]
        key = (dag_id, run_id, task_id, map_index, number)
        with self._lock:
            known = self._tokens.get((key, after))
        records, token = _read(api, ti, number, known)
        lines = log_lines(records)[0 if known else after :]
        reached = after + len(lines)
        with self._lock:
            if token is not None:
                self._tokens[key, reached] = token
            while len(self._tokens) > _TAILS:
                self._tokens.popitem(last=False)
        over = ti["state"] not in _GOES_ON or number < ti["try_number"]
        return {"lines": lines, "next": reached, "ended": over}


def _read(
    api: RestApi, ti: dict[str, Any], number: int, token: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the records of a try's log, those that come after a token; and the token that goes on from there."""
    path = path_of(
        "dags", ti["dag_id"], "dagRuns", ti["dag_run_id"], "taskInstances", ti["task_id"], "logs", str(number)
    )
    try:
        answer = api.get(path, map_index=ti["map_index"], token=token)
    except RunNotFoundError:
        raise RunNotFoundError(
            f"task {ti['task_id']!r} has no try {number}",
            hint=f"It had {ti['try_number']}.",
            task_id=ti["task_id"],
        ) from None
    records = [{"event": line} if isinstance(line, str) else line for line in answer["content"]]
    return records, answer.get("continuation_token")
