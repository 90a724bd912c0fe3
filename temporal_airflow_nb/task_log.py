"""The log of one try of a task, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_SHOWN_APART = frozenset({"timestamp", "level", "event", "logger", "error_detail", "exception"})
_OF_AIRFLOW = frozenset({"loc", "filename", "lineno", "func_name", "chan", "file_type"})


class TaskLog(str):
    """A task's log: a string that shows itself line by line.

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
        log = super().__new__(cls, "\n".join(text for line in recorded for text in _shown(line)))
        log.try_number = try_number
        log.lines = recorded
        return log

    def __repr__(self) -> str:
        return str(self) or f"(try {self.try_number} logged nothing)"

    def __getnewargs__(self) -> tuple[list[Mapping[str, Any]], int]:  # type: ignore[override]
        return self.lines, self.try_number


def _shown(line: Mapping[str, Any]) -> Iterator[str]:
    moment = str(line.get("timestamp") or "")[11:23].rstrip("Z")
    level = str(line.get("level") or "info").upper()
    more = " ".join(f"{k}={v!r}" for k, v in line.items() if k not in _SHOWN_APART and k not in _OF_AIRFLOW)
    event = str(line.get("event", ""))
    yield "  ".join(part for part in (f"{moment:<12}", f"{level:<8}", event, more) if part.strip())
    if line.get("exception"):
        yield from str(line["exception"]).splitlines()
    yield from traceback_lines(line.get("error_detail") or ())


def traceback_lines(details: Sequence[Mapping[str, Any]], indent: str = "") -> Iterator[str]:
    """Yield a recorded exception with its causes the way Python prints a traceback, the cause first."""
    for position, detail in enumerate(reversed(details)):
        if position:
            chained = details[len(details) - position - 1].get("is_cause")
            yield indent + (
                "The above exception was the direct cause of the following exception:"
                if chained
                else "During handling of the above exception, another exception occurred:"
            )
        yield f"{indent}Traceback (most recent call last):"
        for frame in detail.get("frames") or ():
            place = f'File "{frame.get("filename")}", line {frame.get("lineno")}, in {frame.get("name")}'
            yield f"{indent}  {place}"
        yield f"{indent}{detail.get('exc_type')}: {detail.get('exc_value')}"
        for note in detail.get("exc_notes") or ():
            yield indent + str(note)
        for nested in detail.get("exceptions") or ():
            yield from traceback_lines(nested, indent + "  | ")
