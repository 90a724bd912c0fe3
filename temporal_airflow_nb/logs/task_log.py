"""The log of one try of a task, as text.

``Run``, the gateway and the client of Airflow's REST API call it with the records that they have read. It reads no log
itself. A record may lack any of the fields that Airflow's supervisor writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from temporal_airflow_nb.cells.line_map import replace_files_with_cells
from temporal_airflow_nb.display.model import shorten
from temporal_airflow_nb.messages.tasks import LogLine
from temporal_airflow_nb.printable_text import make_printable

Record = Mapping[str, Any]
"""A log record of Airflow as structlog has written it, with any fields."""

_SEPARATE_FIELDS = frozenset({"timestamp", "level", "event", "logger", "error_detail", "exception"})
_AIRFLOW_FIELDS = frozenset({"loc", "filename", "lineno", "func_name", "chan", "file_type"})
_TRY_FIELDS = frozenset({"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"})
_HIDDEN_FIELDS = _SEPARATE_FIELDS | _AIRFLOW_FIELDS | _TRY_FIELDS
# Longest value of a field; longer ones are cut.
_VALUE_WIDTH = 60
_CAUSE_LINE = "The above exception was the direct cause of the following exception:"
_CONTEXT_LINE = "During handling of the above exception, another exception occurred:"
_INSIDE_AIRFLOW = re.compile(r"site-packages[/\\]airflow[/\\]")


class TaskLog(str):
    """A task's log as a string, without the fields that are the same in every record.

    The string has no control characters, which a terminal or a notebook would carry out; ``lines`` has them.

    Attributes
    ----------
    try_number : int
        The try's number.
    lines : list of dict
        The records as Airflow has written them: ``timestamp``, ``level``, ``event``, ``logger`` and more.
    """

    try_number: int
    lines: list[Record]

    def __new__(cls, lines: Iterable[Record], try_number: int) -> TaskLog:
        """Return the log of these records."""
        recorded = list(lines)
        texts = (text for line in _skip_groups(recorded) for text in _line_text(line))
        log = super().__new__(cls, make_printable("\n".join(texts)))
        log.try_number = try_number
        log.lines = recorded
        return log

    def __repr__(self) -> str:
        return str(self) or f"(try {self.try_number} logged nothing)"

    # For copies and pickles, which would otherwise call `__new__` with the text.
    def __getnewargs__(self) -> tuple[list[Record], int]:  # type: ignore[override]
        return self.lines, self.try_number


def _skip_groups(lines: Iterable[Record]) -> Iterator[Record]:
    """Yield the records without the lines that begin and end groups, and without the log's sources."""
    sources = False
    for line in lines:
        event = str(line.get("event", ""))
        if event.startswith("::group::"):
            sources = event.endswith("Log message source details")
        elif event.startswith("::endgroup::"):
            sources = False
        elif not sources:
            yield line


def log_lines(recorded: Iterable[Record]) -> list[LogLine]:
    """Return the records of a log to show: ``time``, ``level`` and ``text``, which includes a traceback.

    >>> log_lines([{"timestamp": "2026-11-25T08:00:00Z", "level": "info", "event": "read", "rows": 3}])
    [{'time': '2026-11-25T08:00:00Z', 'level': 'info', 'text': 'read  rows=3'}]
    """
    return [
        {
            "time": line.get("timestamp"),
            "level": str(line.get("level") or "info"),
            "text": make_printable("\n".join([_message(line), *_exception(line)])),
        }
        for line in _skip_groups(recorded)
    ]


def _line_text(line: Record) -> Iterator[str]:
    moment = str(line.get("timestamp") or "")[11:23].rstrip("Z")
    level = str(line.get("level") or "info").upper()
    yield "  ".join(part for part in (f"{moment:<12}", f"{level:<7}", _message(line)) if part)
    yield from _exception(line)


def _message(line: Record) -> str:
    extra = ((name, value) for name, value in line.items() if name not in _HIDDEN_FIELDS)
    more = " ".join(f"{name}={shorten(repr(value), _VALUE_WIDTH)}" for name, value in extra)
    return "  ".join(part for part in (str(line.get("event", "")), more) if part)


def _exception(line: Record) -> Iterator[str]:
    at = seconds(line)
    if line.get("exception"):
        yield from replace_files_with_cells(str(line["exception"]), not_after=at).splitlines()
    yield from traceback_lines(line.get("error_detail") or (), at=at)


def seconds(line: Record) -> float | None:
    """Return the time of a record in seconds since the epoch; None if it has none."""
    # Python 3.10 doesn't accept the "Z" of UTC.
    try:
        return datetime.fromisoformat(str(line.get("timestamp") or "").replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def traceback_lines(details: Sequence[Record], indent: str = "", *, at: float | None = None) -> Iterator[str]:
    """Yield a recorded exception with its causes, as Python prints it, but with Airflow's frames only counted.

    Parameters
    ----------
    details
        The exception and its causes, as Airflow records them.
    indent
        The beginning of every line.
    at
        The time of the exception, in seconds since the epoch. If a notebook's file was written after that, it isn't the
        file that was executed: its frames are shown as lines of the file, not of cells.
    """
    # Airflow records the exception first; Python prints the first cause first.
    cause: Record | None = None
    for detail in reversed(details):
        if cause is not None:
            yield indent + (_CAUSE_LINE if cause.get("is_cause") else _CONTEXT_LINE)
        cause = detail
        yield f"{indent}Traceback (most recent call last):"
        yield from (f"{indent}  {line}" for line in _frames(detail.get("frames") or (), at))
        yield f"{indent}{detail.get('exc_type')}: {detail.get('exc_value')}"
        for note in detail.get("exc_notes") or ():
            yield indent + str(note)
        for nested in detail.get("exceptions") or ():
            yield from traceback_lines(nested, indent + "  | ", at=at)


def _frames(frames: Iterable[Record], at: float | None) -> Iterator[str]:
    for inside, run in groupby(
        frames, key=lambda frame: bool(_INSIDE_AIRFLOW.search(str(frame.get("filename"))))
    ):
        members = list(run)
        if inside:
            yield f"… {len(members)} frames in Airflow"
            continue
        for frame in members:
            place = f'File "{frame.get("filename")}", line {frame.get("lineno")}'
            yield f"{replace_files_with_cells(place, not_after=at)}, in {frame.get('name')}"
