"""The log of one try: whole, its end, or only what was added since somebody looked."""

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
from temporal_airflow_nb.logs.task_log import LogLine, log_lines
from temporal_airflow_nb.tasks.database import reading

_CHUNK: Final = 1_000_000
_TAILS: Final = 256
# A process that is ending may still write to the log of a try that is over.
_ENDING: Final = timedelta(seconds=2)

Record = dict[str, Any]
Offsets = Mapping[Path, int]


def records(row: Any, number: int) -> list[Record]:
    """Return all that a try has logged, from wherever Airflow has it, the source's description first."""
    stream, _ = TaskLogReader().read_log_chunks(row, number, {})
    return [json.loads(message.model_dump_json()) for message in stream]


def last_records(one: Try) -> list[Record]:
    """Return what a try has logged last: about a megabyte where the log is on this machine."""
    files = _files(one)
    if files is None:
        return records(one.row, one.number)
    offsets = {path: max(0, path.stat().st_size - _CHUNK) for path in files}
    lines, _ = _read(files, offsets, complete=True)
    return _parsed(lines[path][1 if offsets[path] else 0 :] for path in files)


class LogTails:
    """
    Logs that are read again and again while they grow.

    A log that is on this machine is read on from where the caller has got to. Safe in threads.
    """

    def __init__(self) -> None:
        self._offsets: OrderedDict[tuple[Any, ...], Offsets] = OrderedDict()
        self._lock = Lock()

    def read(
        self, dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int | None, after: int
    ) -> dict[str, Any]:
        """Return the lines after the first ``after`` ones, and whether there can be no more."""
        with reading() as session:
            dag_run = find_run(dag_id, run_id, session)
            one = find_try(dag_run, task_id, map_index, try_number, session)
            files = _files(one)
            if files is None:
                lines, all_read = log_lines(records(one.row, one.number))[after:], True
            else:
                key = (dag_id, run_id, task_id, map_index, one.number)
                lines, all_read = self._read_on(key, files, after, complete=one.is_over)
        quiet = one.row.end_date is None or datetime.now(timezone.utc) - one.row.end_date > _ENDING
        return {
            "lines": lines,
            "next": after + len(lines),
            "ended": one.is_over and all_read and quiet,
        }

    def _read_on(
        self, key: tuple[Any, ...], files: list[Path], after: int, *, complete: bool
    ) -> tuple[list[LogLine], bool]:
        with self._lock:
            known = self._offsets.get((key, after))
        offsets, behind = (known, 0) if known is not None else ({}, after)
        while True:
            raw, offsets = _read(files, offsets, complete=complete)
            lines = log_lines(_parsed(raw.values()))
            lines, behind = lines[behind:], max(0, behind - len(lines))
            all_read = all(offsets[path] >= path.stat().st_size for path in files)
            if lines or all_read or not any(raw.values()):
                break
        with self._lock:
            self._offsets[key, after + len(lines)] = offsets
            while len(self._offsets) > _TAILS:
                self._offsets.popitem(last=False)
        return lines, all_read


def _files(one: Try) -> list[Path] | None:
    """Return the files of a try's log, if that is where all of it is; None if Airflow has to look for it."""
    if one.number < 1:
        return []
    handler = TaskLogReader().log_handler
    if not isinstance(handler, FileTaskHandler):
        return None
    if one.is_over and get_remote_task_log() is not None:
        return None
    base = Path(handler.local_base).resolve()
    path = Path(handler.local_base, handler._render_filename(one.row, one.number))
    files = [
        file for file in sorted(path.parent.glob(f"{path.name}*")) if file.resolve().is_relative_to(base)
    ]
    begins_here = not one.is_over and one.row.hostname in (None, "", get_hostname())
    return files if files or begins_here else None


def _read(files: list[Path], offsets: Offsets, *, complete: bool) -> tuple[dict[Path, list[str]], Offsets]:
    """Read on in files; a line that is still being written is left for the next time, unless it is ``complete``."""
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


def _parsed(files: Iterable[list[str]]) -> list[Record]:
    """Return lines of files as records, in the order of their times."""
    messages = _interleave_logs(*(iter(lines) for lines in files))
    return [json.loads(message.model_dump_json()) for message in messages]
