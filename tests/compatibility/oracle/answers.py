"""Answers the tasks of a case that wait for a person."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.compatibility.oracle.drive import Side

_LOOK_AGAIN = 0.1


class Answering:
    """A context manager whose thread answers each task of a case that waits for a person."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.errors: list[Exception] = []
        self._waiting_since: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Answering:
        if self.side.case.answers:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.errors:
            raise self.errors[0]

    def _run(self) -> None:
        answers = self.side.case.answers
        while not self._ended.wait(_LOOK_AGAIN):
            for ti_id, dag_id, task_id, map_index in self._questions():
                if task_id not in answers or not self._has_waited(ti_id):
                    continue
                try:
                    self.side.answer(dag_id, task_id, map_index, answers[task_id])
                except Exception as error:
                    self.errors.append(error)
                    return

    def _has_waited(self, ti_id: str) -> bool:
        now = time.monotonic()
        return now - self._waiting_since.setdefault(ti_id, now) >= self.side.considers

    def _questions(self) -> list[Any]:
        with contextlib.closing(
            sqlite3.connect(f"file:{self.side.source.database}?mode=ro", uri=True, timeout=30)
        ) as database:
            return database.execute(
                "SELECT id, dag_id, task_id, map_index FROM hitl_detail JOIN task_instance ON id = ti_id"
                " WHERE run_id = ? AND state = 'awaiting_input' AND responded_at IS NULL",
                (self.side.run_id,),
            ).fetchall()
