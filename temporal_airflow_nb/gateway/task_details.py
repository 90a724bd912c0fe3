"""A try of a task in detail: rendered fields, XComs, error, and the end of its log.

Runs in the threads of the gateway's pool; one session for each request, which stays open while log files are read.
Frames of an error are shown with the code that was executed: the text of a file that has changed since is not shown.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from airflow.models.dag import DagModel
from airflow.models.dagcode import DagCode
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance as TI
from airflow.models.xcom import XComModel
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select
from sqlalchemy.orm import Session

from temporal_airflow_nb import errors
from temporal_airflow_nb.cells.line_map import find_cell, lines_around, split_lines
from temporal_airflow_nb.client.rows import own_times
from temporal_airflow_nb.display.model import shorten
from temporal_airflow_nb.gateway import log_reader
from temporal_airflow_nb.gateway.lookup import Try, find_run, find_try
from temporal_airflow_nb.gateway.queries import iso, xcom_value
from temporal_airflow_nb.logs import task_error
from temporal_airflow_nb.logs.task_log import Record, seconds
from temporal_airflow_nb.messages.requests import TryRef
from temporal_airflow_nb.messages.tasks import ErrorDetails, ErrorFrame, ShownXCom, TaskDetails, TryRow
from temporal_airflow_nb.tasks.database import reading

_XCOM_CHARS: Final = 2_000
_LOG_LINES: Final = 20
_AROUND: Final = 3
_FAILED = frozenset({TaskInstanceState.FAILED, TaskInstanceState.UP_FOR_RETRY})
_NOT_THE_USERS = (sysconfig.get_path("stdlib"), str(Path(errors.__file__).parent))


def task(request: TryRef) -> TaskDetails:
    """Return a try of a task in detail; the latest if no try is named."""
    with reading() as session:
        dag_run = find_run(request.dag_id, request.run_id, session)
        one = find_try(dag_run, request.task_id, request.map_index, request.try_number, session)
        state = _try_state(one)
        logged = log_reader.last_records(one)
        failure = task_error.find_failure(logged) if state in _FAILED else None
        fields = one.ti.rendered_task_instance_fields
        return {
            "task_id": request.task_id,
            "map_index": request.map_index,
            "try_number": one.number,
            "state": state,
            "operator": one.ti.custom_operator_name or one.ti.operator,
            "rendered": fields.rendered_fields if fields is not None else {},
            "xcoms": list(_xcoms(one.ti, session)),
            "tries": list(_tries(one)),
            "error": _error(failure, one, session) if state in _FAILED else None,
            "log": task_error.last_lines(logged, failure, one.number, _LOG_LINES),
            "next_retry_at": _next_retry(one.ti),
        }


def _try_state(one: Try) -> str | None:
    return None if one.row.state is None else str(one.row.state)


def _xcoms(ti: TI, session: Session) -> Iterator[ShownXCom]:
    query = select(XComModel.key, XComModel.value).filter_by(
        dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index
    )
    for key, stored in sorted(session.execute(query), key=lambda row: (row.key != "return_value", row.key)):
        value = xcom_value(stored)
        yield {"key": key, "value": shorten(value if isinstance(value, str) else repr(value), _XCOM_CHARS)}


def _tries(one: Try) -> Iterator[TryRow]:
    before: TryRow | None = None
    for row in one.former:
        before = _try(row)
        yield before
    latest = _try(one.ti)
    number, queued, start = (
        (0, None, None)
        if before is None
        else (before["try_number"], before["queued_dttm"], before["start_date"])
    )
    if latest["try_number"] > number:
        yield {**latest, **own_times(latest, queued, start)}


def _try(row: Any) -> TryRow:
    return {
        "try_number": row.try_number,
        "state": None if row.state is None else str(row.state),
        "queued_dttm": iso(row.queued_dttm),
        "start_date": iso(row.start_date),
        "end_date": iso(row.end_date),
        "duration": row.duration,
        "hostname": row.hostname or "",
    }


def _next_retry(ti: TI) -> str | None:
    # `next_retry_datetime` needs the task's `retry_delay`: None if the DAG doesn't have the task any more.
    if ti.state != TaskInstanceState.UP_FOR_RETRY or ti.task is None:
        return None
    return iso(ti.next_retry_datetime())


def _error(failure: Record | None, one: Try, session: Session) -> ErrorDetails | None:
    if failure is None:
        return _worker_lost(one, session)
    at, sources = seconds(failure), _Sources(one, session)
    frames = [_frame(frame, at, sources) for frame in task_error.failure_frames(failure)]
    return {**task_error.describe_failure(failure), "frames": frames}


def _worker_lost(one: Try, session: Session) -> ErrorDetails | None:
    """Return what was recorded of a try whose worker was lost, and logged no error."""
    ti = one.ti
    which = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
    query = select(Log.extra).filter_by(event="worker lost", try_number=one.number, **which)
    reason = session.scalar(query.order_by(Log.id.desc()).limit(1))
    if reason is None:
        return None
    return {"type": "Worker lost", "value": reason, "more": [], "text": "", "frames": []}


def _frame(frame: Mapping[str, object], at: float | None, sources: _Sources) -> ErrorFrame:
    filename, lineno, name = str(frame.get("filename")), frame.get("lineno"), frame.get("name")
    lineno = lineno if isinstance(lineno, int) else 0
    shown: ErrorFrame = {
        "filename": filename,
        "lineno": lineno,
        "name": None if name is None else str(name),
        "line": "",
        "cell": None,
        "user": _is_users(filename),
    }
    if shown["user"]:
        source = sources.of(filename, at)
        lines = split_lines(source)
        shown["context"] = lines_around(source, lineno, _AROUND)
        shown["line"] = lines[lineno - 1].strip() if 0 < lineno <= len(lines) else ""
        cell = find_cell(source, lineno)
        shown["cell"] = None if cell is None else str(cell)
    return shown


def _is_users(filename: str) -> bool:
    return not task_error.is_library(filename) and not filename.startswith(_NOT_THE_USERS)


class _Sources:
    """The text of files as a try executed them, as far as that is known."""

    def __init__(self, one: Try, session: Session) -> None:
        self._code = session.scalar(select(DagCode).where(DagCode.dag_version_id == one.row.dag_version_id))
        self._relative = session.scalar(
            select(DagModel.relative_fileloc).where(DagModel.dag_id == one.ti.dag_id)
        )

    def of(self, filename: str, at: float | None) -> str:
        """Return the text of a file at a time, in seconds since the epoch; empty if it has changed since."""
        # The code of the try's DAG version, if it was stored before the error.
        if self._code is not None and self._is_dag_file(filename, self._code):
            return self._code.source_code if at is None or self._code.last_updated.timestamp() <= at else ""
        path = Path(filename)
        try:
            return path.read_text(encoding="utf-8") if at is None or path.stat().st_mtime <= at else ""
        # The file may be gone, or be on another machine. The error is shown without lines of code then.
        except (OSError, UnicodeDecodeError):
            return ""

    def _is_dag_file(self, filename: str, code: DagCode) -> bool:
        return filename == code.fileloc or bool(self._relative and filename.endswith(f"/{self._relative}"))
