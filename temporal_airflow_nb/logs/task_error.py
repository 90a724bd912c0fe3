"""Why a try of a task failed, from what it has logged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from temporal_airflow_nb.logs.task_log import TaskLog, seconds, traceback_lines
from temporal_airflow_nb.messages.tasks import ErrorSummary

Record = Mapping[str, Any]

_TASK_FAILED: Final = "Task failed with exception"
# What Airflow logs of a process that ended without an exception, and what tells how.
_ENDED: Final = ("Task exited", "Process exited abnormally", "Process terminated by signal")
_HOW: Final = {"exit_code": "exit code ", "signal_name": ""}
_PREPARING: Final = "::group::Pre Execute"
_MORE: Final = 8
_LIBRARY = re.compile(r"[/\\](?:site|dist)-packages[/\\]|[/\\]lib[/\\]python\d\.\d+[/\\]|^<")


def is_library(filename: str) -> bool:
    """Return whether a frame's file is nobody's own: a package's, Python's, or no file at all."""
    return bool(_LIBRARY.search(filename))


def failure(records: Sequence[Record]) -> Record | None:
    """Return the record that says why a try failed: its exception, or how its process ended."""
    raised = [record for record in records if record.get("error_detail")]
    of_task = [record for record in raised if record.get("event") == _TASK_FAILED]
    ended = [record for record in records if str(record.get("event")).startswith(_ENDED)]
    return next(reversed(of_task or ended or raised), None)


def error(record: Record) -> ErrorSummary:
    """Return what :func:`failure` has found, for people.

    Returns
    -------
    dict
        ``type`` and ``value`` of the exception, ``more``: a line each for its notes, what it came from and a group's
        members, ``text``: the traceback.
    """
    details = record.get("error_detail") or ()
    if not details:
        return _end_of_process(record)
    raised = details[0]
    return {
        "type": raised.get("exc_type"),
        "value": raised.get("exc_value"),
        "more": list(_more(details))[:_MORE],
        "text": "\n".join(traceback_lines(details, at=seconds(record))),
    }


def frames(record: Record) -> Sequence[Mapping[str, Any]]:
    """Return the frames of the exception itself, as Airflow has recorded them."""
    details = record.get("error_detail") or ()
    return (details[0].get("frames") or ()) if details else ()


def last_lines(records: Sequence[Record], told: Record | None, number: int, most: int) -> list[str]:
    """Return the end of a log: without what is ``told`` apart, and without Airflow's preparations."""
    shown = (record for record in _of_the_task(records[-10 * most :]) if record is not told)
    return TaskLog(shown, number).splitlines()[-most:]


def _end_of_process(record: Record) -> ErrorSummary:
    what, _, rest = str(record.get("event")).partition(". ")
    how = (f"{said}{record[name]}" for name, said in _HOW.items() if record.get(name) is not None)
    return {"type": what, "value": ". ".join(part for part in (*how, rest) if part), "more": [], "text": ""}


def _more(details: Sequence[Mapping[str, Any]], indent: str = "") -> Iterator[str]:
    for position, detail in enumerate(details):
        if position:
            yield f"{indent}{'from' if detail.get('is_cause') else 'while handling'} {_named(detail)}"
        yield from (f"{indent}{note}" for note in detail.get("exc_notes") or ())
        for member in detail.get("exceptions") or ():
            yield f"{indent}| {_named(member[0])}"
            yield from _more(member, f"{indent}| ")


def _named(detail: Mapping[str, Any]) -> str:
    return ": ".join(str(part) for part in (detail.get("exc_type"), detail.get("exc_value")) if part)


def _of_the_task(records: Iterable[Record]) -> Iterator[Record]:
    preparing = False
    for record in records:
        event = str(record.get("event", ""))
        if event.startswith(("::group::", "::endgroup::")):
            preparing = event == _PREPARING
        if not preparing or record.get("level") not in (None, "info", "debug"):
            yield record
