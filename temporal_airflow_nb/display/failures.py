"""Describe failed task instances: exception, code, end of the log, and useful calls.

The answer to ``get_task`` has these details. The kernel calls this module for ``run.failures``, the live grid and
the representations of a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from temporal_airflow_nb.display.commands import suggest_commands
from temporal_airflow_nb.display.model import Grid, Instance, format_duration, shorten
from temporal_airflow_nb.printable_text import make_printable

SHOWN = 3
_LOG_LINES = 10
_MESSAGE = 500
_TRACEBACK = 6000
_AROUND = 3


@dataclass(frozen=True)
class SourceLine:
    """A line of the code that failed, numbered as in the cell or file that ``place`` names."""

    number: int
    text: str
    failing: bool


@dataclass(frozen=True)
class Failure:
    """A failed task instance.

    Attributes
    ----------
    task_id, map_index, try_number
        The try that failed.
    exception : str
        ``"ValueError: not a date"``, or how the process ended; empty if nothing was recorded.
    more : tuple of str
        Notes and causes of the exception and the members of an exception group, a line each.
    place : str
        The innermost frame in the user's code: ``"In [7], line 3, in parse"``.
    source : tuple of SourceLine
        The lines around it.
    log : tuple of str
        The last lines of the log.
    commands : tuple of str
        Calls that are useful next.
    """

    task_id: str
    map_index: int
    try_number: int
    max_tries: int = 0
    seconds: float | None = None
    exception: str = ""
    more: tuple[str, ...] = ()
    place: str = ""
    source: tuple[SourceLine, ...] = ()
    log: tuple[str, ...] = ()
    traceback: str = ""
    commands: tuple[str, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """``task_id``, with the map index if there is one."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"

    @property
    def after(self) -> str:
        """``at try 3 of 3, after 1.00 s``."""
        parts = []
        if self.max_tries:
            parts.append(f"at try {self.try_number} of {max(self.max_tries + 1, self.try_number)}")
        if self.seconds is not None:
            parts.append(f"after {format_duration(self.seconds)}")
        return ", ".join(parts)

    def __str__(self) -> str:
        return make_printable("\n".join(format_failure(self)))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from temporal_airflow_nb.display.failure_html import render_failure

        return str(render_failure(self))


class Failures(tuple[Failure, ...]):
    """Failed task instances, shown one below the other."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "Nothing failed."

    def _repr_html_(self) -> str:
        from temporal_airflow_nb.display.failure_html import render_failures

        return str(render_failures(self))


def list_failures(grid: Grid, limit: int = SHOWN) -> Failures:
    """Return the first failures of a run, with their known details."""
    return Failures(
        describe_failure(instance, grid.details.get((instance.task_id, instance.map_index)))
        for instance in grid.failures[:limit]
    )


def describe_failure(instance: Instance, details: Mapping[str, Any] | None = None) -> Failure:
    """Return a failure; ``details`` is the answer to ``get_task``, if there is one."""
    known = details or {}
    error = known.get("error") or {}
    frame = _users_frame(error.get("frames") or ())
    return Failure(
        task_id=instance.task_id,
        map_index=instance.map_index,
        try_number=instance.try_number,
        max_tries=instance.max_tries,
        seconds=instance.seconds,
        exception=_exception(error),
        more=tuple(_clipped(line) for line in error.get("more") or ()),
        place=_place(frame) if frame else "",
        source=tuple(_source(frame)) if frame else (),
        log=tuple(map(make_printable, known.get("log") or ()))[-_LOG_LINES:],
        traceback=make_printable(str(error.get("text") or ""))[-_TRACEBACK:],
        commands=tuple(suggest_commands(instance.task_id, instance.map_index, instance.state)),
    )


def format_failure(failed: Failure) -> Iterator[str]:
    """Yield the lines of a failure as text."""
    yield " ".join(f"✗ {failed.name} failed {failed.after}".split())
    if failed.exception:
        yield from (f"    {line}".rstrip() for line in failed.exception.splitlines())
    yield from (f"      {line}" for line in failed.more)
    if failed.place:
        yield f"    {failed.place}"
    width = len(str(failed.source[-1].number)) if failed.source else 0
    for line in failed.source:
        yield f"    {'▸' if line.failing else ' '} {line.number:>{width}} {line.text}".rstrip()
    if failed.log:
        yield "    The end of its log:"
        yield from (f"      {line}".rstrip() for line in failed.log)
    yield "    Next: " + "   ".join(failed.commands)


def _exception(error: Mapping[str, Any]) -> str:
    name, value = str(error.get("type") or ""), _clipped(str(error.get("value") or ""))
    return ": ".join(part for part in (name, value) if part)


def _clipped(message: str) -> str:
    return shorten(make_printable(message), _MESSAGE)


def _users_frame(frames: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((frame for frame in reversed(frames) if frame.get("user")), None)


def _place(frame: Mapping[str, Any]) -> str:
    where = frame.get("cell") or f'"{frame.get("filename")}", line {frame.get("lineno")}'
    name = frame.get("name")
    return f"{where}, in {name}" if name and name != "<module>" else str(where)


def _source(frame: Mapping[str, Any]) -> Iterator[SourceLine]:
    failing = int(frame.get("lineno") or 0)
    named = re.search(r"line (\d+)$", str(frame.get("cell") or ""))
    offset = int(named[1]) - failing if named else 0
    context = frame.get("context") or ([[failing, frame["line"]]] if frame.get("line") else [])
    around = [(number, text) for number, text in context if abs(number - failing) <= _AROUND]
    for number, text in around:
        if number + offset > 0:
            yield SourceLine(number + offset, str(text), number == failing)
