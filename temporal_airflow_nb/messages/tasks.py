"""Answers about one task instance: its details, its log, its XComs."""

from __future__ import annotations

from typing import Any, TypedDict

from temporal_airflow_nb.messages.requests import JsonObject

LogRecord = JsonObject
"""A line of a log as it was recorded: ``timestamp``, ``level``, ``event``, ``logger``, and what a task adds."""


class Times(TypedDict):
    """When a try was queued, began and ended, and the seconds that it took."""

    queued_dttm: str | None
    start_date: str | None
    end_date: str | None
    duration: float | None


class TryRow(Times):
    """A try of a task instance."""

    try_number: int
    state: str | None
    hostname: str


class XCom(TypedDict):
    """An XCom of a run, its value deserialised; text if JSON can't hold the value."""

    task_id: str
    map_index: int
    key: str
    value: Any
    timestamp: str | None


class XComList(TypedDict):
    """XComs, the oldest first."""

    xcoms: list[XCom]


class ShownXCom(TypedDict):
    """An XCom as a page shows it: its value is text, shortened."""

    key: str
    value: str


class ErrorFrame(TypedDict, total=False):
    """A frame of a traceback; ``context`` holds the source lines around it, if they are known."""

    filename: str
    lineno: int
    name: str | None
    line: str
    cell: str | None
    user: bool
    context: list[Any]


class ErrorSummary(TypedDict):
    """The reason of a failure as text."""

    type: str | None
    """Class of the exception, or the event that a process's end is logged as."""
    value: str | None
    """Message of the exception, or how the process ended."""
    more: list[str]
    """One line each for the exception's notes, its causes, and the members of an exception group."""
    text: str
    """The traceback."""


class ErrorDetails(ErrorSummary):
    """An exception with the frames of its traceback."""

    frames: list[ErrorFrame]


class TaskDetails(TypedDict):
    """A try of a task instance in detail; ``tries`` holds all of its tries, the first one first."""

    task_id: str
    map_index: int
    try_number: int
    state: str | None
    operator: str | None
    rendered: JsonObject
    xcoms: list[ShownXCom]
    tries: list[TryRow]
    error: ErrorDetails | None
    log: list[str]
    next_retry_at: str | None


class Log(TypedDict):
    """The log of a try, as it was recorded."""

    try_number: int
    lines: list[LogRecord]


class LogLine(TypedDict):
    """A line of a log as a page shows it; a traceback is part of its text."""

    time: str | None
    level: str
    text: str


class LogTail(TypedDict):
    """Further lines of a log, the number of all lines so far, and whether the log has ended."""

    lines: list[LogLine]
    next: int
    ended: bool
