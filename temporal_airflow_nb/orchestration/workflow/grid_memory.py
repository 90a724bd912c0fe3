"""What a workflow knows of its run's grid: the task instances, their times and their former tries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from temporal_airflow_nb.orchestration.workflow.grid_encoding import ENDED_STATES, pack, unpack
from temporal_airflow_nb.orchestration.workflow.models import MAX_PAYLOAD, Key

_WIDTH = 9
_STATE, _TRY = 2, 3
_TIMES = slice(5, 8)
_START = 6
_MOST_WITH_TIMES = 25_000


class GridMemory:
    """
    The task instances of a run, as its scheduling passes have told them.

    A row is ``[task_id, map_index, state, try_number, max_tries, queued, start, end, label]``, times in seconds since
    the epoch; a shorter one lacks what comes last.

    Parameters
    ----------
    handed_on
        What :meth:`pack` of the execution before returned.

    Examples
    --------
    >>> memory = GridMemory()
    >>> memory.put([["load", -1, "scheduled", 1]])
    >>> memory.start(("load", -1), 1, now=7.0)
    >>> memory.put([["load", -1, "up_for_retry", 1, 1, 6.5, 7.0, 9.0]])
    >>> memory.put([["load", -1, "scheduled", 2, 1, 6.5, 7.0, 9.0]])
    >>> memory.rows()
    [['load', -1, 'scheduled', 2, 1, None, None, None, None, [[1, 'failed', 6.5, 7.0, 9.0]]]]
    """

    def __init__(self, handed_on: str | None = None) -> None:
        self.run: dict[str, Any] = {}
        """Facts of the run: its type, its times, the version of its DAG."""
        self.structure: str | None = None
        """The DAG's structure, packed, unless it is too large or not known."""
        self._rows: dict[Key, list[Any]] = {}
        self._former: dict[Key, list[list[Any]]] = {}
        for *row, former in unpack(handed_on) if handed_on else ():
            key = (row[0], row[1])
            self._rows[key] = row
            if former:
                self._former[key] = former

    def remember(self, former: Iterable[Sequence[Any]]) -> None:
        """Note former tries as the database has them: ``[task_id, map_index, tries]``."""
        self._former.update({(task_id, map_index): tries for task_id, map_index, tries in former})

    def put(self, rows: Iterable[Sequence[Any]]) -> None:
        """Note task instances as the database has them."""
        for told in rows:
            row = [*told, *[None] * (_WIDTH - len(told))]
            key = (row[0], row[1])
            before = self._rows.get(key)
            if before is not None and _is_another_try(before, row):
                self._end_try(key, before, row)
            former = self._former.get(key)
            if former and row[_STATE] != "up_for_retry" and former[-1][3] == row[_START]:
                # Not begun yet: the database still has the times of the try before.
                row[_TIMES] = [None] * 3
            self._rows[key] = row
            if key[1] >= 0:
                self._rows.pop((key[0], -1), None)

    def start(self, key: Key, try_number: int, now: float) -> None:
        """Note that a try is handed to a worker; when it really began is told at its end."""
        row = [*key, "running", try_number]
        if (before := self._rows.get(key)) is not None:
            row += before[len(row) :]
        row += [None] * (_WIDTH - len(row))
        queued, start, _ = row[_TIMES]
        row[_TIMES] = [queued or now, start or now, None]
        self._rows[key] = row

    def state(self, key: Key) -> str | None:
        """Return the state of a task instance, None also where it isn't known."""
        row = self._rows.get(key)
        return None if row is None else row[_STATE]

    def known(self) -> list[list[Any]]:
        """Return ``[task_id, map_index, state, try_number]`` of each task instance."""
        return [row[: _TRY + 1] for row in self._rows.values()]

    def counts(self) -> dict[str, int]:
        """Return how many task instances are in each state."""
        counts: dict[str, int] = {}
        for row in self._rows.values():
            counts[row[_STATE] or "none"] = counts.get(row[_STATE] or "none", 0) + 1
        return counts

    def rows(self) -> list[list[Any]]:
        """Return each row with its former tries, ``[try_number, state, queued, start, end]``, as a last element."""
        return [[*row, self._tries(key, row)] for key, row in self._rows.items()]

    def pack(self) -> str:
        """
        Return the rows as a short text, for a query or for the execution that continues this one.

        Of very many, former tries are left out, then times, then labels: Temporal bounds a payload, and how long this
        may take.
        """
        times = len(self._rows) <= _MOST_WITH_TIMES
        if times and len(text := pack(self.rows())) <= MAX_PAYLOAD:
            return text
        if times and len(text := pack([[*row, []] for row in self._rows.values()])) <= MAX_PAYLOAD:
            return text
        text = pack([[*row[: _TIMES.start], None, None, None, row[-1], []] for row in self._rows.values()])
        if len(text) <= MAX_PAYLOAD:
            return text
        return pack([[*row[: _TIMES.start], None, None, None, None, []] for row in self._rows.values()])

    def _tries(self, key: Key, row: list[Any]) -> list[list[Any]]:
        # One that waits to be tried again is among the database's former tries, too.
        upcoming = row[_TRY] if row[_STATE] == "up_for_retry" else row[_TRY] + 1
        return [tried for tried in self._former.get(key, ()) if tried[0] < upcoming]

    def _end_try(self, key: Key, before: list[Any], row: list[Any]) -> None:
        state = before[_STATE] if before[_STATE] in ENDED_STATES else "failed"
        # Of one that was cleared while it ran, the database alone knows the times.
        times = row[_TIMES] if before[_STATE] == "running" else before[_TIMES]
        tries = self._former.setdefault(key, [])
        if not tries or tries[-1][0] < before[_TRY]:
            tries.append([before[_TRY], state, *times])


def _is_another_try(before: list[Any], row: list[Any]) -> bool:
    """Return whether what ``before`` tells of is over and done with: it is tried again, or was cleared."""
    if not before[_TRY]:
        return False
    cleared = before[_STATE] in ENDED_STATES and row[_STATE] not in ENDED_STATES
    return row[_TRY] > before[_TRY] or cleared
