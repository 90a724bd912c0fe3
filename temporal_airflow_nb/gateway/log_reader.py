"""Reads the log of a try: all of it, its end, or the lines that a caller doesn't have yet.

Runs in the threads of the gateway's pool. A log whose files are on this machine is read here, from a byte offset;
Airflow's own reader, which always reads a log from its beginning, reads all other logs.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Lock
from typing import Any, Final

from airflow.logging_config import get_remote_task_log
from airflow.utils.log.file_task_handler import FileTaskHandler, _interleave_logs
from airflow.utils.log.log_reader import TaskLogReader
from airflow.utils.net import get_hostname

from temporal_airflow_nb.gateway.lookup import Try, find_run, find_try
from temporal_airflow_nb.logs.task_log import log_lines
from temporal_airflow_nb.messages.requests import TailLog
from temporal_airflow_nb.messages.tasks import LogLine, LogRecord, LogTail
from temporal_airflow_nb.tasks.database import reading

_CHUNK: Final = 1_000_000
_TAILS: Final = 256
# A process that is ending may still write to the log of a try that is over.
_ENDING: Final = timedelta(seconds=2)

Offsets = Mapping[Path, int]
_TryKey = tuple[str, str, str, int, int]


def records(row: Any, number: int) -> list[LogRecord]:
    """Return the whole log of a try as Airflow's reader returns it, after a description of its source."""
    stream, _ = TaskLogReader().read_log_chunks(row, number, {})
    return [json.loads(message.model_dump_json()) for message in stream]


def last_records(one: Try) -> list[LogRecord]:
    """Return the last megabyte of a try's log, or all of it if its files aren't on this machine."""
    files = _files(one)
    if files is None:
        return records(one.row, one.number)
    offsets = {path: max(0, path.stat().st_size - _CHUNK) for path in files}
    lines, _ = _read(files, offsets, complete=True)
    # An offset other than 0 is somewhere in a line: the rest of that line is left out.
    return _parsed(lines[path][1 if offsets[path] else 0 :] for path in files)


class LogTails:
    """
    Reads logs while they grow. Safe to use from several threads.

    The byte offsets that belong to a number of lines are remembered, so that a caller with that number of lines is
    answered without reading them again. ``_lock`` protects the table of offsets; files are read without it. Two callers
    that read the same part at the same time store the same offsets.
    """

    def __init__(self) -> None:
        self._offsets: OrderedDict[tuple[_TryKey, int], Offsets] = OrderedDict()
        self._lock = Lock()

    def read(self, request: TailLog) -> LogTail:
        """Return the lines after those that the caller has, and whether more can follow."""
        after = request.after
        with reading() as session:
            dag_run = find_run(request.dag_id, request.run_id, session)
            one = find_try(dag_run, request.task_id, request.map_index, request.try_number, session)
            files = _files(one)
            if files is None:
                lines, all_read = log_lines(records(one.row, one.number))[after:], True
            else:
                key = (request.dag_id, request.run_id, request.task_id, request.map_index, one.number)
                lines, all_read = self._read_on(key, files, after, complete=one.is_over)
        quiet = one.row.end_date is None or datetime.now(timezone.utc) - one.row.end_date > _ENDING
        return {
            "lines": lines,
            "next": after + len(lines),
            "ended": one.is_over and all_read and quiet,
        }

    def _read_on(
        self, key: _TryKey, files: list[Path], after: int, *, complete: bool
    ) -> tuple[list[LogLine], bool]:
        # Unknown after a restart of the gateway, for example: then all is read again, and `skipped` lines are left out.
        with self._lock:
            known = self._offsets.get((key, after))
        offsets, skipped = (known, 0) if known is not None else ({}, after)
        while True:
            raw, offsets = _read(files, offsets, complete=complete)
            lines = log_lines(_parsed(raw.values()))
            lines, skipped = lines[skipped:], max(0, skipped - len(lines))
            all_read = all(offsets[path] >= path.stat().st_size for path in files)
            if lines or all_read or not any(raw.values()):
                break
        with self._lock:
            self._offsets[key, after + len(lines)] = offsets
            while len(self._offsets) > _TAILS:
                self._offsets.popitem(last=False)
        return lines, all_read


def _files(one: Try) -> list[Path] | None:
    """Return the files of a try's log; None if they may be on another machine."""
    if one.number < 1:
        return []
    handler = TaskLogReader().log_handler
    if not isinstance(handler, FileTaskHandler):
        return None
    # With remote logging, local files may be gone or incomplete after the end of the try.
    if one.is_over and get_remote_task_log() is not None:
        return None
    base = Path(handler.local_base).resolve()
    # Private: Airflow has no public function for the place of a try's log.
    path = Path(handler.local_base, handler._render_filename(one.row, one.number))
    # A task could have made a link to any file: only files below the log folder are read.
    files = [
        file for file in sorted(path.parent.glob(f"{path.name}*")) if file.resolve().is_relative_to(base)
    ]
    begins_here = not one.is_over and one.row.hostname in (None, "", get_hostname())
    return files if files or begins_here else None


def _read(files: list[Path], offsets: Offsets, *, complete: bool) -> tuple[dict[Path, list[str]], Offsets]:
    """Read about a megabyte of each file from its offset; return the lines and the new offsets.

    Unless ``complete``, a last line without a line break is left for the next call: its end isn't written yet.
    """
    texts, reached = {}, {}
    for path in files:
        with path.open("rb") as file:
            offset = offsets.get(path, 0)
            file.seek(offset)
            lines = file.readlines(_CHUNK)
        if lines and not complete and not lines[-1].endswith(b"\n"):
            lines.pop()
        texts[path] = [line.decode(errors="replace").rstrip("\n") for line in lines]
        reached[path] = offset + sum(map(len, lines))
    return texts, reached


def _parsed(files: Iterable[list[str]]) -> list[LogRecord]:
    """Return lines of files as records in the order of their times, as Airflow's reader does."""
    # Private: Airflow's reader merges the files of a try with it, by time.
    messages = _interleave_logs(*(iter(lines) for lines in files))
    return [json.loads(message.model_dump_json()) for message in messages]
