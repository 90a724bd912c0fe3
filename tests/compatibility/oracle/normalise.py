"""Removes values that differ in each run: times, paths, ids of processes and objects."""

from __future__ import annotations

import hashlib
import re
import socket
import sys
import tempfile
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?")
DAY = re.compile(r"\d{4}-\d\d-\d\d")
UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
FILE_MODULE = re.compile(r"unusual_prefix_[0-9a-f]+_")
LONG = 2000


class Normaliser:
    """Replaces the times, paths and ids of one run with names.

    Parameters
    ----------
    run
        The run's row of ``dag_run``.
    places
        Name to show by path.
    """

    def __init__(self, run: Mapping[str, Any], places: Mapping[str, str]) -> None:
        dates = {
            name: _utc(run[name])
            for name in ("logical_date", "data_interval_start", "data_interval_end")
            if run[name]
        }
        self._dates = dates
        self._start = _utc(run["queued_at"] or run["start_date"]) - timedelta(hours=1)
        self._end = datetime.now(tz=timezone.utc) + timedelta(hours=1)
        names: dict[str, str] = {}
        for name, date in reversed(dates.items()):
            names.update(_spellings(name, date))
        names[run["run_id"]] = "<run_id>"
        names |= {path: f"<{place}>" for path, place in places.items()}
        self._names = {tempfile.gettempdir(): "<tmp>", sys.executable: "<python>", **names}
        longest_first = sorted(self._names, key=len, reverse=True)
        # A date must not replace the beginning of another time on the same day.
        ends = {name: r"(?![T ]\d\d:\d\d)" for name in self._names if DAY.fullmatch(name)}
        self._named = re.compile("|".join(re.escape(name) + ends.get(name, "") for name in longest_first))
        self._host = re.compile(rf"\b{re.escape(socket.gethostname())}\b")

    def __call__(self, value: Any) -> Any:
        """Return the value with times, paths and ids replaced, at any depth."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self(key): self(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._number(value)
        return value

    def _text(self, text: str) -> str:
        if len(text) > LONG:
            return f"<{len(text)} characters, {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
        text = self._named.sub(lambda match: self._names[match.group()], text)
        text = TIMESTAMP.sub(self._timestamp, text)
        text = UUID.sub("<uuid>", text)
        text = ADDRESS.sub("<address>", text)
        text = FILE_MODULE.sub("", text)
        return self._host.sub("<host>", text)

    def _timestamp(self, match: re.Match[str]) -> str:
        try:
            found = _utc(match.group().replace(",", "."))
        except ValueError:
            return match.group()
        return "<now>" if self._start < found < self._end else match.group()

    def _number(self, number: float) -> Any:
        for name, date in self._dates.items():
            if number == date.timestamp():
                return f"<{name}>"
        return "<now>" if self._start.timestamp() < number < self._end.timestamp() else number


def _utc(text: str) -> datetime:
    date = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return date.replace(tzinfo=timezone.utc) if date.tzinfo is None else date.astimezone(timezone.utc)


def _spellings(name: str, date: datetime) -> dict[str, str]:
    """Return all spellings of a date in Airflow's templates."""
    day = f"<{name}'s day>"
    return {
        date.strftime("%Y-%m-%d"): day,
        date.strftime("%Y%m%d"): f"<{name}'s day, no dashes>",
        date.strftime("%Y%m%dT%H%M%S"): f"<{name}, no dashes>",
        date.isoformat(): f"<{name}>",
        date.isoformat().replace("+00:00", "Z"): f"<{name}, Z>",
        str(date): f"<{name}, spaced>",
    }
