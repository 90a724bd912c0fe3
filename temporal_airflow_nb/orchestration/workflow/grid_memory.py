"""The grid of a run as its workflow remembers it: task instances, their times and former tries.

It is part of the workflow's state: it changes only by what activities return and by the workflow's clock, so that a
replay builds the same grid. Queries read it in the worker while the workflow waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from temporal_airflow_nb.orchestration.workflow.grid_encoding import (
    ENDED_STATES,
    UnreadableGridError,
    pack,
    pack_within,
    unpack,
)
from temporal_airflow_nb.orchestration.workflow.models import MAX_PAYLOAD, Key

_ROW_LENGTH = 9
# Positions in a row.
_STATE, _TRY, _LABEL = 2, 3, 8
_TIMES = slice(5, 8)
_START = 6
# Above this number of rows, `pack` leaves out times without trying, because packing takes too long for one step of a
# workflow.
_MAX_ROWS_WITH_TIMES = 25_000


class GridMemory:
    """
    The task instances of a run, as its scheduling passes have returned them.

    A row is ``[task_id, map_index, state, try_number, max_tries, queued, start, end, None]``, times in seconds since
    the epoch. A shorter row lacks the trailing elements. Histories of earlier versions have the label of a mapped task
    at the end; it isn't kept, because it may contain user data.

    Parameters
    ----------
    packed
        The result of :meth:`pack` in the previous execution of the workflow.

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

    def __init__(self, packed: str | None = None) -> None:
        self.run: dict[str, str | float | None] = {}
        """The run's type, its times, and the version of its DAG."""
        self.structure: str | None = None
        """The DAG's structure, packed; None if it is too large or unknown."""
        self._rows: dict[Key, list[Any]] = {}
        self._former: dict[Key, list[list[Any]]] = {}
        for *row, former in _read(packed) if packed else ():
            key = (row[0], row[1])
            row[_LABEL] = None
            self._rows[key] = row
            if former:
                self._former[key] = former

    def remember(self, former: Iterable[Sequence[Any]]) -> None:
        """Take over former tries from the database: ``[task_id, map_index, tries]``."""
        self._former.update({(task_id, map_index): tries for task_id, map_index, tries in former})

    def put(self, rows: Iterable[Sequence[Any]]) -> None:
        """Take over task instances from the database."""
        for short_row in rows:
            row = [*short_row[:_LABEL], *[None] * (_ROW_LENGTH - len(short_row[:_LABEL]))]
            key = (row[0], row[1])
            before = self._rows.get(key)
            if before is not None and _is_another_try(before, row):
                self._end_try(key, before, row)
            former = self._former.get(key)
            if former and row[_STATE] != "up_for_retry" and former[-1][3] == row[_START]:
                # The try hasn't started: the database still has the times of the previous one.
                row[_TIMES] = [None] * 3
            self._rows[key] = row
            if key[1] >= 0:
                # The task is expanded now; Airflow has replaced its instance with index -1.
                self._rows.pop((key[0], -1), None)

    def start(self, key: Key, try_number: int, now: float) -> None:
        """Mark a task instance as running from ``now``; the pass after its end brings the real times."""
        row = [*key, "running", try_number]
        if (before := self._rows.get(key)) is not None:
            row += before[len(row) :]
        row += [None] * (_ROW_LENGTH - len(row))
        queued, start, _ = row[_TIMES]
        row[_TIMES] = [queued or now, start or now, None]
        self._rows[key] = row

    def state(self, key: Key) -> str | None:
        """Return the state of a task instance; None if it has none or is unknown."""
        row = self._rows.get(key)
        state: str | None = None if row is None else row[_STATE]
        return state

    def known(self) -> list[list[Any]]:
        """Return ``[task_id, map_index, state, try_number]`` of each task instance."""
        return [row[: _TRY + 1] for row in self._rows.values()]

    def counts(self) -> dict[str, int]:
        """Return the number of task instances in each state."""
        counts: dict[str, int] = {}
        for row in self._rows.values():
            counts[row[_STATE] or "none"] = counts.get(row[_STATE] or "none", 0) + 1
        return counts

    def rows(self) -> list[list[Any]]:
        """Return the rows, each with a list of its former tries as last element.

        A former try is ``[try_number, state, queued, start, end]``.
        """
        return [[*row, self._former_tries(key, row)] for key, row in self._rows.items()]

    def pack(self) -> str:
        """
        Return the rows as a short text, for a query or for a continuation as new.

        If there are very many, it leaves out former tries, then times, then everything: Temporal limits the size of a
        payload and the duration of a step.
        """
        rows = self._rows.values()
        text = None
        if len(self._rows) <= _MAX_ROWS_WITH_TIMES:
            text = pack_within(self.rows(), MAX_PAYLOAD) or pack_within(
                [[*row, []] for row in rows], MAX_PAYLOAD
            )
        without_times = [[*row[: _TIMES.start], *[None] * 4, []] for row in rows] if not text else []
        # An empty grid is filled again by the resync with which each execution begins.
        return text or pack_within(without_times, MAX_PAYLOAD) or pack([])

    def _former_tries(self, key: Key, row: list[Any]) -> list[list[Any]]:
        # A try that failed and is up for retry is the current one, and among the former ones in the database as well.
        upcoming = row[_TRY] if row[_STATE] == "up_for_retry" else row[_TRY] + 1
        return [tried for tried in self._former.get(key, ()) if tried[0] < upcoming]

    def _end_try(self, key: Key, before: list[Any], row: list[Any]) -> None:
        state = before[_STATE] if before[_STATE] in ENDED_STATES else "failed"
        # A try that was cleared while it ran: only the database has its real times.
        times = row[_TIMES] if before[_STATE] == "running" else before[_TIMES]
        tries = self._former.setdefault(key, [])
        if not tries or tries[-1][0] < before[_TRY]:
            tries.append([before[_TRY], state, *times])


def _read(packed: str) -> list[list[Any]]:
    """Return the rows of :meth:`GridMemory.pack`; those that can't be used are left out.

    A workflow that raised here would try again without end. The resync with which it begins finds the rows again.
    """
    try:
        rows = unpack(packed)
    except UnreadableGridError:
        return []
    return [row for row in rows if _is_row(row)] if isinstance(rows, list) else []


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == _ROW_LENGTH + 1
        and isinstance(row[0], str)
        and isinstance(row[1], int)
        and isinstance(row[-1], list)
    )


def _is_another_try(before: list[Any], row: list[Any]) -> bool:
    """Return whether ``row`` belongs to a later try than ``before``: a retry, or after a clear."""
    if not before[_TRY]:
        return False
    cleared = before[_STATE] in ENDED_STATES and row[_STATE] not in ENDED_STATES
    return row[_TRY] > before[_TRY] or cleared
