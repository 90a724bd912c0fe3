"""Logs of tasks, through Airflow's REST API."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Final, cast

from temporal_airflow_nb.client.rest.http import ApiObject, RestApi, path_of
from temporal_airflow_nb.errors import RunNotFoundError
from temporal_airflow_nb.logs.task_log import log_lines
from temporal_airflow_nb.messages.tasks import Log, LogRecord, LogTail

_TAILS: Final = 256
_UNFINISHED: Final = ("running", "queued", "restarting", "deferred")

_TryKey = tuple[str, str, str, int, int]


def find(api: RestApi, dag_id: str, run_id: str, task_id: str, map_index: int) -> ApiObject:
    """Return a task instance as the API describes it."""
    base = path_of("dags", dag_id, "dagRuns", run_id, "taskInstances", task_id)
    try:
        return cast("ApiObject", api.get(base if map_index < 0 else f"{base}/{map_index}"))
    except RunNotFoundError as error:
        raise RunNotFoundError(
            f"Run {run_id!r} has no task {task_id!r} with map_index {map_index}: {error.message}",
            hint="Check the task_id; a mapped task needs a map_index.",
            task_id=task_id,
        ) from None


def log(api: RestApi, dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int | None) -> Log:
    """Return the log of a try; of the latest if ``try_number`` is None."""
    ti = find(api, dag_id, run_id, task_id, map_index)
    number = try_number or ti["try_number"]
    records, _ = _read(api, ti, number)
    return {"try_number": number, "lines": records}


class RestLogTails:
    """Reads logs while they grow. Safe to use from several threads.

    The API returns a token with the end of a log. A request with this token returns only the lines after that end. Each
    token is stored under the number of lines that a caller has read by then.
    """

    def __init__(self) -> None:
        self._tokens: OrderedDict[tuple[_TryKey, int], str] = OrderedDict()
        self._lock = Lock()

    def read(
        self,
        api: RestApi,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int,
        try_number: int | None,
        after: int,
    ) -> LogTail:
        """Return the lines after the first ``after`` ones, and whether more can follow."""
        ti = find(api, dag_id, run_id, task_id, map_index)
        number = try_number or ti["try_number"]
        key = (dag_id, run_id, task_id, map_index, number)
        with self._lock:
            known = self._tokens.get((key, after))
        # Without the lock, because Airflow may take seconds to answer.
        records, token = _read(api, ti, number, known)
        lines = log_lines(records)[0 if known else after :]
        reached = after + len(lines)
        with self._lock:
            if token is not None:
                self._tokens[key, reached] = token
            while len(self._tokens) > _TAILS:
                self._tokens.popitem(last=False)
        ended = ti["state"] not in _UNFINISHED or number < ti["try_number"]
        return {"lines": lines, "next": reached, "ended": ended}


def _read(
    api: RestApi, ti: ApiObject, number: int, token: str | None = None
) -> tuple[list[LogRecord], str | None]:
    """Return the records of a try's log after a token, and the next token."""
    path = path_of(
        "dags", ti["dag_id"], "dagRuns", ti["dag_run_id"], "taskInstances", ti["task_id"], "logs", str(number)
    )
    try:
        answer = api.get(path, map_index=ti["map_index"], token=token)
    except RunNotFoundError:
        raise RunNotFoundError(
            f"Task {ti['task_id']!r} has no try {number}.",
            hint=f"Its latest try is {ti['try_number']}.",
            task_id=ti["task_id"],
        ) from None
    records = [{"event": line} if isinstance(line, str) else line for line in answer["content"]]
    return records, answer.get("continuation_token")
