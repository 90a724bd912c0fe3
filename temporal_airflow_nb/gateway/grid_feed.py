"""The grid of a DAG as a stream of changes: its runs, the task instances of one of them, counts of the others."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from threading import Lock
from typing import Any, Final

from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun, DagRunNote
from airflow.models.taskinstance import TaskInstance as TI
from airflow.models.taskinstancehistory import TaskInstanceHistory as TIH
from sqlalchemy import and_, func, select, tuple_
from sqlalchemy.orm import Session

from temporal_airflow_nb.client.change_tracker import Changes, cells_since
from temporal_airflow_nb.client.rows import own_times
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.errors import RunNotFoundError
from temporal_airflow_nb.gateway.queries import TASK_COLUMNS, iso, links
from temporal_airflow_nb.orchestration.scheduling.dag_structure import get_structure
from temporal_airflow_nb.orchestration.workflow.grid_encoding import build_flat_structure
from temporal_airflow_nb.orchestration.workflow.models import FINAL_RUN_STATES, Key
from temporal_airflow_nb.tasks.dags import dag_of_run
from temporal_airflow_nb.tasks.database import commit_count, reading

Pages = Callable[[], Mapping[str, str]]

# A row becomes visible later than its `updated_at` says: by what its transaction takes after it.
_OVERLAP: Final = timedelta(seconds=5)
# What other processes write, a scheduler or another worker, is looked for at this interval.
_LOOK_SECONDS: Final = 1.0
# Everything is read again now and then, for what a longer transaction has written.
_SCAN_SECONDS: Final = 15.0
_SCANS_PER_COST: Final = 50
_MANY: Final = 500
_VIEWS: Final = 32
_FORGOTTEN_AFTER: Final = 600.0
_MOMENTS: Final = ("start_date", "end_date", "queued_dttm")
_RUN_COLUMNS = (
    DagRun.id,
    DagRun.run_id,
    DagRun._state.label("state"),
    DagRun.run_type,
    DagRun.start_date,
    DagRun.end_date,
    DagRun.queued_at,
    DagRun.logical_date,
    DagRun.run_after,
    DagVersion.version_number,
    DagRunNote.content,
    DagRun.updated_at,
)


class GridView:
    """
    What is known of a DAG's latest runs, and of the task instances of one run, the focus.

    All who watch the same share it, so that the database is asked once for each change. Safe in threads.

    Parameters
    ----------
    dag_id, run_id
        The focus.
    window
        How many runs are shown beside each other.
    """

    def __init__(self, dag_id: str, run_id: str, window: int) -> None:
        self.dag_id = dag_id
        self.run_id = run_id
        self.window = window
        self.cost = 0.0
        """Seconds that the last look at the database has taken."""
        self._lock = Lock()
        self._name = secrets.token_hex(4)
        self._look = 0
        self._commits = -1
        self._looked = self._scanned = self._scan_cost = 0.0
        self._since: datetime | None = None
        self._marks: dict[Key, Any] = {}
        self._dag: Any = None
        self._structure: tuple[dict[str, Any], int] = ({}, 0)
        self._order: list[str] = []
        self._places: dict[str, tuple[int, str | None]] = {}
        self._runs = Changes()
        self._tasks = Changes()
        self._cells = Changes()
        self._counted: dict[str, tuple[Any, float]] = {}

    def changes(self, after: str | None, pages: Mapping[str, str]) -> tuple[dict[str, Any], bool]:
        """Return what has changed after the cursor ``after``, and whether anything has."""
        with self._lock:
            self._refresh()
            return self._answer(after, pages)

    def _answer(self, after: str | None, pages: Mapping[str, str]) -> tuple[dict[str, Any], bool]:
        name, _, number = (after or "").partition(".")
        full = name != self._name or not number.isdigit()
        known = 0 if full else int(number)
        structure, found = self._structure
        changed = {run_id for run_id, _ in self._runs.since(known)}
        tasks: list[dict[str, Any]] = [task for _, task in self._tasks.since(known)]
        news: dict[str, Any] = {
            "structure": structure if found > known else None,
            "tasks": sorted(tasks, key=self._place),
            "removed": [] if full else [list(key) for key in self._tasks.lost_since(known)],
            "cells": cells_since(known, self._cells, self._runs),
            "dropped": [] if full else self._runs.lost_since(known),
        }
        answer = {
            "cursor": f"{self._name}.{self._look}",
            "full": full,
            "now": iso(datetime.now(timezone.utc)),
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "workflow_id": workflow_id(self.dag_id, self.run_id),
            "links": links(self.dag_id, self.run_id, pages),
            "runs": [self._runs.values[run] for run in self._order if run in changed or run == self.run_id],
            **news,
        }
        return answer, bool(full or changed or any(news.values()))

    def _place(self, task: Mapping[str, Any]) -> tuple[int, int]:
        return self._places.get(task["task_id"], (len(self._places), None))[0], task["map_index"]

    def _refresh(self) -> None:
        """Read what has changed, unless nothing can have."""
        seen, now = commit_count(), time.monotonic()
        if seen == self._commits and now - self._looked < _LOOK_SECONDS:
            return
        self._look += 1
        began = datetime.now(timezone.utc)
        with reading() as session:
            # The runs first: one that has ended is never told before its tasks.
            ended = self._read_runs(session)
            known = self._read_structure(session)
            scan = (
                ended
                or self._structure[1] == self._look
                or now - self._scanned > max(_SCAN_SECONDS, _SCANS_PER_COST * self._scan_cost)
            )
            self._read_tasks(session, None if scan else self._since)
            if not known:
                self._show_flat()
            self._read_cells(session, now, everything=scan)
        self.cost = time.monotonic() - now
        self._commits, self._looked, self._since = seen, now, began - _OVERLAP
        if scan:
            self._scanned, self._scan_cost = now, self.cost

    def _read_runs(self, session: Session) -> bool:
        """Read the runs that are shown; return whether the focus has just ended, or begun anew."""
        query = (
            select(*_RUN_COLUMNS)
            .outerjoin(DagVersion, DagVersion.id == DagRun.created_dag_version_id)
            .outerjoin(DagRunNote, DagRunNote.dag_run_id == DagRun.id)
            .where(DagRun.dag_id == self.dag_id)
        )
        rows = list(
            session.execute(query.order_by(DagRun.run_after.desc(), DagRun.id.desc()).limit(self.window))
        )
        if all(row.run_id != self.run_id for row in rows):
            rows += session.execute(query.where(DagRun.run_id == self.run_id))
        before = self._runs.values.get(self.run_id, {}).get("state")
        for row in rows:
            self._runs.put(row.run_id, _run(row), self._look)
        self._order = [row.run_id for row in rows]
        self._runs.keep(self._order, self._look)
        self._rows = {row.run_id: row for row in rows}
        if self.run_id not in self._rows:
            raise RunNotFoundError(
                f"DAG {self.dag_id!r} has no run {self.run_id!r}",
                hint="It may have been deleted.",
                dag_id=self.dag_id,
                run_id=self.run_id,
            )
        return before != self._rows[self.run_id].state

    def _read_structure(self, session: Session) -> bool:
        """Read the DAG in the version that the focus uses; return whether it is in the database."""
        dag_run = session.get_one(DagRun, self._rows[self.run_id].id)
        dag = dag_of_run(dag_run, session)
        if dag is not None and dag is not self._dag:
            if dag_run.bundle_version and dag_run.created_dag_version_id:
                version = session.get(DagVersion, dag_run.created_dag_version_id)
            else:
                version = DagVersion.get_latest_version(self.dag_id, session=session)
            self._show({"version": version and version.version_number, **get_structure(dag)})
        self._dag = dag
        return dag is not None

    def _show_flat(self) -> None:
        operators = {task["task_id"]: task["operator"] for task in self._tasks.values.values()}
        self._show({"version": None, **build_flat_structure(sorted(operators.items()))})

    def _show(self, structure: dict[str, Any]) -> None:
        if structure != self._structure[0]:
            self._structure = (structure, self._look)
            # A task may be in another group now.
            self._marks.clear()
            self._places = {
                node["id"]: (place, node["parent"]) for place, node in enumerate(structure["nodes"])
            }

    def _read_tasks(self, session: Session, since: datetime | None) -> None:
        of_run = and_(TI.dag_id == self.dag_id, TI.run_id == self.run_id)
        query = select(*TASK_COLUMNS, TI.updated_at).where(of_run)
        if since is not None:
            rows = session.execute(query.where(TI.updated_at >= since)).all()
            self._put([row for row in rows if self._marks.get(_key(row)) != _mark(row)], session)
            count = session.scalar(select(func.count()).select_from(TI).where(of_run))
            if count == len(self._tasks.values):
                return
            # Some were added by a longer transaction, or some are gone: an expansion reuses a row.
        marks = select(TI.task_id, TI.map_index, TI.state, TI.updated_at).where(of_run)
        there = {(row[0], row[1]): (row[2], row[3]) for row in session.execute(marks)}
        outdated = [key for key, mark in there.items() if self._marks.get(key) != mark]
        if len(outdated) < _MANY:
            query = query.where(tuple_(TI.task_id, TI.map_index).in_(outdated))
        if outdated:
            self._put(session.execute(query).all(), session)
        self._marks = {key: mark for key, mark in self._marks.items() if key in there}
        self._tasks.keep(there, self._look)

    def _put(self, rows: Any, session: Session) -> None:
        former = self._former_tries({row.task_id for row in rows}, session)
        for row in rows:
            key = _key(row)
            task = _task(row, former.get(key, ()))
            task["group"] = self._places.get(row.task_id, (0, None))[1]
            self._tasks.put(key, task, self._look)
            self._marks[key] = _mark(row)

    def _former_tries(self, task_ids: set[str], session: Session) -> dict[Key, list[Any]]:
        if not task_ids:
            return {}
        query = (
            select(
                TIH.task_id,
                TIH.map_index,
                TIH.try_number,
                TIH.state,
                TIH.queued_dttm,
                TIH.start_date,
                TIH.end_date,
            )
            .where(TIH.dag_id == self.dag_id, TIH.run_id == self.run_id, TIH.try_number > 0)
            .order_by(TIH.try_number)
        )
        if len(task_ids) < _MANY:
            query = query.where(TIH.task_id.in_(task_ids))
        tries = defaultdict(list)
        for task_id, map_index, number, state, *moments in session.execute(query):
            tries[task_id, map_index].append([number, state, *map(iso, moments)])
        return tries

    def _read_cells(self, session: Session, now: float, *, everything: bool) -> None:
        """Count the states of other runs that may have changed: those that go on, and those whose row has."""
        wanted = []
        for run_id, row in self._rows.items():
            counted, at = self._counted.get(run_id, (None, 0.0))
            goes_on = row.state not in FINAL_RUN_STATES and now - at >= _LOOK_SECONDS
            if run_id != self.run_id and (everything or goes_on or counted != row):
                wanted.append(run_id)
                self._counted[run_id] = (row, now)
        counts: dict[Any, dict[str, int]] = defaultdict(dict)
        if wanted:
            query = (
                select(TI.run_id, TI.task_id, TI.state, func.count())
                .where(TI.dag_id == self.dag_id, TI.run_id.in_(wanted))
                .group_by(TI.run_id, TI.task_id, TI.state)
            )
            for run_id, task_id, state, count in session.execute(query):
                counts[run_id, task_id][state or "no_status"] = count
        for key, states in counts.items():
            self._cells.put(key, states, self._look)
        untouched = (key for key in self._cells.values if key[0] in self._rows and key[0] not in wanted)
        self._cells.keep([*counts, *untouched], self._look)


def _run(row: Any) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "state": str(row.state),
        "run_type": str(row.run_type),
        "start_date": iso(row.start_date),
        "end_date": iso(row.end_date),
        "queued_at": iso(row.queued_at),
        "logical_date": iso(row.logical_date),
        "run_after": iso(row.run_after),
        "version": row.version_number,
        "note": row.content,
    }


def _key(row: Any) -> Key:
    return row.task_id, row.map_index


def _mark(row: Any) -> tuple[Any, Any]:
    """Return what tells whether a task instance has changed."""
    return row.state, row.updated_at


def _task(row: Any, history: Any) -> dict[str, Any]:
    task = {name: value for name, value in row._mapping.items() if name != "updated_at"}
    task["state"] = None if row.state is None else str(row.state)
    for name in _MOMENTS:
        task[name] = iso(task[name])
    # One that waits to be tried again is in the history, too.
    waits = row.state == "up_for_retry"
    task["tries"] = [one for one in history if one[0] < row.try_number + (not waits)]
    _, _, queued, start, _ = task["tries"][-1] if task["tries"] and not waits else [None] * 5
    return task | own_times(task, queued, start)


class Feeds:
    """
    The views of the gateway's callers; those that nobody has asked for lately are forgotten.

    Parameters
    ----------
    pages
        Tells the addresses of UIs, by name.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._views: OrderedDict[tuple[str, str, int], tuple[float, GridView]] = OrderedDict()
        self._lock = Lock()

    def changes(
        self, dag_id: str, run_id: str, window: int, after: str | None
    ) -> tuple[dict[str, Any], bool]:
        """Return what has changed in the grid after the cursor ``after``, and whether anything has."""
        return self._view(dag_id, run_id, window).changes(after, self._pages())

    def _view(self, *key: Any) -> GridView:
        now = time.monotonic()
        with self._lock:
            view = self._views.pop(key)[1] if key in self._views else GridView(*key)
            self._views[key] = now, view
            while len(self._views) > _VIEWS or next(iter(self._views.values()))[0] < now - _FORGOTTEN_AFTER:
                self._views.popitem(last=False)
        return view
