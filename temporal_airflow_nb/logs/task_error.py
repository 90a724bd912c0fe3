"""Why a try of a task failed, from what it has logged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from temporal_airflow_nb.logs.task_log import TaskLog, seconds, traceback_lines

Record = Mapping[str, Any]

_TASK_FAILED: Final = "Task failed with exception"
# What Airflow logs of a process that ended without an exception, and what tells how.
_EXIT_EVENTS: Final = ("Task exited", "Process exited abnormally", "Process terminated by signal")
_EXIT_FIELDS: Final = {"exit_code": "exit code ", "signal_name": ""}
_PREPARING: Final = "::group::Pre Execute"
_MAX_DETAILS: Final = 8
_LIBRARY = re.compile(r"[/\\](?:site|dist)-packages[/\\]|[/\\]lib[/\\]python\d\.\d+[/\\]|^<")


def is_library(filename: str) -> bool:
    """Return whether a frame's file is nobody's own: a package's, Python's, or no file at all."""
    return bool(_LIBRARY.search(filename))


def find_failure(records: Sequence[Record]) -> Record | None:
    """Return the record that says why a try failed: its exception, or how its process ended."""
    raised = [record for record in records if record.get("error_detail")]
    of_task = [record for record in raised if record.get("event") == _TASK_FAILED]
    ended = [record for record in records if str(record.get("event")).startswith(_EXIT_EVENTS)]
    return next(reversed(of_task or ended or raised), None)


def describe_failure(record: Record) -> dict[str, Any]:
    """Return what :func:`find_failure` has found, for people.

    Returns
    -------
    dict
        ``type`` and ``value`` of the exception, ``more``: a line each for its notes, what it came from and a group's
        members, ``text``: the traceback.
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


def failure_frames(record: Record) -> Sequence[Mapping[str, Any]]:
    """Return the frames of the exception itself, as Airflow has recorded them."""
    details = record.get("error_detail") or ()
    return (details[0].get("frames") or ()) if details else ()


def last_lines(
    records: Sequence[Record], shown_elsewhere: Record | None, number: int, most: int
) -> list[str]:
    """Return the end of a log: without what is ``shown_elsewhere`` apart, and without Airflow's preparations."""
    shown = (record for record in _skip_preparations(records[-10 * most :]) if record is not shown_elsewhere)
    return TaskLog(shown, number).splitlines()[-most:]


def _describe_exit(record: Record) -> dict[str, Any]:
    what, _, rest = str(record.get("event")).partition(". ")
    how = (f"{prefix}{record[name]}" for name, prefix in _EXIT_FIELDS.items() if record.get(name) is not None)
    return {"type": what, "value": ". ".join(part for part in (*how, rest) if part), "more": [], "text": ""}


def _detail_lines(details: Sequence[Mapping[str, Any]], indent: str = "") -> Iterator[str]:
    for position, detail in enumerate(details):
        if position:
            yield f"{indent}{'from' if detail.get('is_cause') else 'while handling'} {_title(detail)}"
        yield from (f"{indent}{note}" for note in detail.get("exc_notes") or ())
        for member in detail.get("exceptions") or ():
            yield f"{indent}| {_title(member[0])}"
            yield from _detail_lines(member, f"{indent}| ")


def _title(detail: Mapping[str, Any]) -> str:
    return ": ".join(str(part) for part in (detail.get("exc_type"), detail.get("exc_value")) if part)


def _skip_preparations(records: Iterable[Record]) -> Iterator[Record]:
    preparing = False
    for record in records:
        event = str(record.get("event", ""))
        if event.startswith(("::group::", "::endgroup::")):
            preparing = event == _PREPARING
        if not preparing or record.get("level") not in (None, "info", "debug"):
            yield record
