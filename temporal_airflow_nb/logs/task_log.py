"""The log of one try of a task, as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from temporal_airflow_nb.cells.line_map import with_cells
from temporal_airflow_nb.display.model import cut
from temporal_airflow_nb.messages.tasks import LogLine

_SHOWN_APART = frozenset({"timestamp", "level", "event", "logger", "error_detail", "exception"})
_OF_AIRFLOW = frozenset({"loc", "filename", "lineno", "func_name", "chan", "file_type"})
_OF_THE_TRY = frozenset({"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"})
_UNSAID = _SHOWN_APART | _OF_AIRFLOW | _OF_THE_TRY
_VALUE = 60
_BECAUSE = "The above exception was the direct cause of the following exception:"
_MEANWHILE = "During handling of the above exception, another exception occurred:"
_INSIDE_AIRFLOW = re.compile(r"site-packages[/\\]airflow[/\\]")


class TaskLog(str):
    """A task's log: a string that shows itself line by line, without what is the same in every line.

    Attributes
    ----------
    try_number : int
        The try that the log is of.
    lines : list of dict
        What was logged, as it was recorded: ``timestamp``, ``level``, ``event``, ``logger`` and more.
    """

    try_number: int
    lines: list[Mapping[str, Any]]

    def __new__(cls, lines: Iterable[Mapping[str, Any]], try_number: int) -> TaskLog:
        """Return the log of recorded lines."""
        recorded = list(lines)
        log = super().__new__(cls, "\n".join(text for line in _told(recorded) for text in _shown(line)))
        log.try_number = try_number
        log.lines = recorded
        return log

    def __repr__(self) -> str:
        return str(self) or f"(try {self.try_number} logged nothing)"

    def __getnewargs__(self) -> tuple[list[Mapping[str, Any]], int]:  # type: ignore[override]
        return self.lines, self.try_number


def _told(lines: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the lines without the marks of groups, and without the group that says where the log was read."""
    sources = False
    for line in lines:
        event = str(line.get("event", ""))
        if event.startswith("::group::"):
            sources = event.endswith("Log message source details")
        elif event.startswith("::endgroup::"):
            sources = False
        elif not sources:
            yield line


def log_lines(recorded: Iterable[Mapping[str, Any]]) -> list[LogLine]:
    """Return what a log shows, a record each: its ``time``, ``level`` and ``text``, a traceback being part of it.

    >>> log_lines([{"timestamp": "2026-11-25T08:00:00Z", "level": "info", "event": "read", "rows": 3}])
    [{'time': '2026-11-25T08:00:00Z', 'level': 'info', 'text': 'read  rows=3'}]
    """
    return [
        {
            "time": line.get("timestamp"),
            "level": str(line.get("level") or "info"),
            "text": "\n".join([_message(line), *_exception(line)]),
        }
        for line in _told(recorded)
    ]


def _shown(line: Mapping[str, Any]) -> Iterator[str]:
    moment = str(line.get("timestamp") or "")[11:23].rstrip("Z")
    level = str(line.get("level") or "info").upper()
    yield "  ".join(part for part in (f"{moment:<12}", f"{level:<7}", _message(line)) if part)
    yield from _exception(line)


def _message(line: Mapping[str, Any]) -> str:
    extra = ((name, value) for name, value in line.items() if name not in _UNSAID)
    more = " ".join(f"{name}={cut(repr(value), _VALUE)}" for name, value in extra)
    return "  ".join(part for part in (str(line.get("event", "")), more) if part)


def _exception(line: Mapping[str, Any]) -> Iterator[str]:
    at = seconds(line)
    if line.get("exception"):
        yield from with_cells(str(line["exception"]), not_after=at).splitlines()
    yield from traceback_lines(line.get("error_detail") or (), at=at)


def seconds(line: Mapping[str, Any]) -> float | None:
    """Return when a line was logged, in seconds since the epoch."""
    try:
        return datetime.fromisoformat(str(line.get("timestamp") or "").replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def traceback_lines(
    details: Sequence[Mapping[str, Any]], indent: str = "", *, at: float | None = None
) -> Iterator[str]:
    """Yield a recorded exception with its causes as Python prints it, Airflow's own frames only counted.

    Parameters
    ----------
    details
        The exception, and what it is a consequence of, as Airflow records it.
    indent
        What every line begins with.
    at
        When it was raised, in seconds since the epoch: a notebook's file that was written later isn't the one that
        was executed, so that its frames are shown as the file's, not as cells'.
    """
    cause: Mapping[str, Any] | None = None
    for detail in reversed(details):
        if cause is not None:
            yield indent + (_BECAUSE if cause.get("is_cause") else _MEANWHILE)
        cause = detail
        yield f"{indent}Traceback (most recent call last):"
        yield from (f"{indent}  {line}" for line in _frames(detail.get("frames") or (), at))
        yield f"{indent}{detail.get('exc_type')}: {detail.get('exc_value')}"
        for note in detail.get("exc_notes") or ():
            yield indent + str(note)
        for nested in detail.get("exceptions") or ():
            yield from traceback_lines(nested, indent + "  | ", at=at)


def _frames(frames: Iterable[Mapping[str, Any]], at: float | None) -> Iterator[str]:
    for inside, run in groupby(
        frames, key=lambda frame: bool(_INSIDE_AIRFLOW.search(str(frame.get("filename"))))
    ):
        members = list(run)
        if inside:
            yield f"… {len(members)} frames in Airflow"
            continue
        for frame in members:
            place = f'File "{frame.get("filename")}", line {frame.get("lineno")}'
            yield f"{with_cells(place, not_after=at)}, in {frame.get('name')}"
