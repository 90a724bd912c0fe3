"""Find the reason of a task's failure in the log records of its try."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from temporal_airflow_nb.logs.task_log import Record, TaskLog, seconds, traceback_lines
from temporal_airflow_nb.messages.tasks import ErrorSummary

_TASK_FAILED: Final = "Task failed with exception"
# Events that Airflow logs when a process ends without an exception, and the fields of these records that are shown.
_EXIT_EVENTS: Final = ("Task exited", "Process exited abnormally", "Process terminated by signal")
_EXIT_FIELDS: Final = {"exit_code": "exit code ", "signal_name": ""}
_PREPARING: Final = "::group::Pre Execute"
_MAX_DETAILS: Final = 8
_LIBRARY = re.compile(r"[/\\](?:site|dist)-packages[/\\]|[/\\]lib[/\\]python\d\.\d+[/\\]|^<")


def is_library(filename: str) -> bool:
    """Return whether a frame is in a file of a package or of Python, or in no file at all."""
    return bool(_LIBRARY.search(filename))


def find_failure(records: Sequence[Record]) -> Record | None:
    """Return the record with the reason of a failure; None if there is none.

    It is the last exception of the task, else the end of its process, else the last other exception.
    """
    raised = [record for record in records if record.get("error_detail")]
    of_task = [record for record in raised if record.get("event") == _TASK_FAILED]
    ended = [record for record in records if str(record.get("event")).startswith(_EXIT_EVENTS)]
    return next(reversed(of_task or ended or raised), None)


def describe_failure(record: Record) -> ErrorSummary:
    """Return the record that :func:`find_failure` has found, in a form to show.

    Returns
    -------
    ErrorSummary
        The exception, or the end of the process.
    """
    details = record.get("error_detail") or ()
    if not details:
        return _describe_exit(record)
    raised = details[0]
    return {
        "type": raised.get("exc_type"),
        "value": raised.get("exc_value"),
        "more": list(_detail_lines(details))[:_MAX_DETAILS],
        "text": "\n".join(traceback_lines(details, at=seconds(record))),
    }


def failure_frames(record: Record) -> Sequence[Record]:
    """Return the recorded frames of the exception itself, not of its causes."""
    # Airflow lists the exception first, then its causes.
    details = record.get("error_detail") or ()
    return (details[0].get("frames") or ()) if details else ()


def last_lines(
    records: Sequence[Record], shown_elsewhere: Record | None, number: int, most: int
) -> list[str]:
    """Return the last lines of a log, without one record and Airflow's preparations of the task.

    Parameters
    ----------
    records
        The log's records.
    shown_elsewhere
        The record to leave out, because it is shown by itself.
    number
        The try's number.
    most
        The largest number of lines.
    """
    # Only the end of a long log is converted: ten records for each wanted line, since some are left out.
    shown = (record for record in _skip_preparations(records[-10 * most :]) if record is not shown_elsewhere)
    return TaskLog(shown, number).splitlines()[-most:]


def _describe_exit(record: Record) -> ErrorSummary:
    what, _, rest = str(record.get("event")).partition(". ")
    how = (f"{prefix}{record[name]}" for name, prefix in _EXIT_FIELDS.items() if record.get(name) is not None)
    return {"type": what, "value": ". ".join(part for part in (*how, rest) if part), "more": [], "text": ""}


def _detail_lines(details: Sequence[Record], indent: str = "") -> Iterator[str]:
    for position, detail in enumerate(details):
        if position:
            yield f"{indent}{'from' if detail.get('is_cause') else 'while handling'} {_title(detail)}"
        yield from (f"{indent}{note}" for note in detail.get("exc_notes") or ())
        for member in detail.get("exceptions") or ():
            yield f"{indent}| {_title(member[0])}"
            yield from _detail_lines(member, f"{indent}| ")


def _title(detail: Record) -> str:
    return ": ".join(str(part) for part in (detail.get("exc_type"), detail.get("exc_value")) if part)


def _skip_preparations(records: Iterable[Record]) -> Iterator[Record]:
    preparing = False
    for record in records:
        event = str(record.get("event", ""))
        if event.startswith(("::group::", "::endgroup::")):
            preparing = event == _PREPARING
        if not preparing or record.get("level") not in (None, "info", "debug"):
            yield record
