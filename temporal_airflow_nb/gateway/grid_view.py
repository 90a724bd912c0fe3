"""The grid of a DAG's latest runs, read from Airflow's database.

A grid consists of the runs, the task instances of one of them, and counts of states for the others. The gateway has a
view for each run that is followed; the threads of the gateway's pool share it. A lock is held while a view reads, so
that callers who wait share a reading, which is one read transaction. A reading asks for rows by their ``updated_at``;
because a row becomes visible only at the commit of its transaction, everything is read again now and then.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from threading import Lock
from typing import Any, Final

from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun, DagRunNote
from airflow.models.taskinstance import TaskInstance as TI
from airflow.models.taskinstancehistory import TaskInstanceHistory as TIH
from sqlalchemy import and_, func, select, tuple_
from sqlalchemy.orm import Session

from temporal_airflow_nb.client.grid_tracker import GridTracker
from temporal_airflow_nb.client.rows import own_times
from temporal_airflow_nb.errors import RunNotFoundError
from temporal_airflow_nb.gateway.queries import TASK_QUERY, iso, links, task_row
from temporal_airflow_nb.messages.grid import Counts, FormerTry, GridChanges, GridRun, GridTask, Structure
from temporal_airflow_nb.messages.requests import GetGridChanges
from temporal_airflow_nb.orchestration.scheduling.dag_structure import get_structure
from temporal_airflow_nb.orchestration.workflow.grid_encoding import build_flat_structure
from temporal_airflow_nb.orchestration.workflow.models import FINAL_RUN_STATES, Key
from temporal_airflow_nb.tasks.dags import dag_of_run
from temporal_airflow_nb.tasks.database import commit_count, reading

Pages = Callable[[], Mapping[str, str]]
_Row = Any
"""A row of a query, with attributes by column."""
_Version = tuple[Any, Any]

# A row becomes visible later than its `updated_at`, by the time that the rest of its transaction takes. Airflow sets
# `updated_at` by the clock of the machine that writes, which may differ from the clock here.
_OVERLAP: Final = timedelta(seconds=5)
# A view searches for changes by other processes, such as a scheduler or another worker, at this interval.
_READ_SECONDS: Final = 1.0
# Everything is read again at this interval, for the rows of longer transactions; less often if that takes long.
_SCAN_SECONDS: Final = 15.0
_SCANS_PER_COST: Final = 50
# With more keys than this, a query reads all rows instead: databases limit the parameters of a query.
_MANY: Final = 500
_VIEWS: Final = 32
_FORGOTTEN_AFTER: Final = 600.0
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
    A DAG's latest runs, and the task instances of the run in focus.

    Safe to use from several threads: ``_lock`` protects every attribute below it.

    Parameters
    ----------
    dag_id, run_id
        The run in focus.
    window
        How many runs are shown beside each other.
    """

    def __init__(self, dag_id: str, run_id: str, window: int) -> None:
        self.dag_id = dag_id
        self.run_id = run_id
        self.window = window
        self._lock = Lock()
        self._tracker = GridTracker(dag_id, run_id)
        self._commits = -1
        # Monotonic times of the latest reading and of the latest scan.
        self._read_at = self._scanned = self._scan_cost = 0.0
        self._since: datetime | None = None
        # State and `updated_at` of the task instances, by which a change is noticed.
        self._versions: dict[Key, _Version] = {}
        self._dag: Any = None
        self._rows: Mapping[str, _Row] = {}
        self._counted: dict[str, tuple[Any, float]] = {}

    def changes(self, after: str | None, pages: Mapping[str, str]) -> tuple[GridChanges, bool]:
        """Return what has changed after the cursor ``after``, and whether anything has."""
        # Held during the queries as well: a thread that has waited for it finds the new state and queries nothing.
        with self._lock:
            self._refresh()
            return self._tracker.answer(after, links(self.dag_id, self.run_id, pages))

    def _refresh(self) -> None:
        """Read what has changed, unless nothing can have changed."""
        # Before the reading: a commit during it leads to another reading.
        seen, now = commit_count(), time.monotonic()
        if seen == self._commits and now - self._read_at < _READ_SECONDS:
            return
        self._tracker.reading += 1
        began = datetime.now(timezone.utc)
        with reading() as session:
            # The runs first: a run never appears as ended before its tasks do.
            ended = self._read_runs(session)
            known = self._read_structure(session)
            scan = (
                ended
                or self._tracker.structure_reading == self._tracker.reading
                or now - self._scanned > max(_SCAN_SECONDS, _SCANS_PER_COST * self._scan_cost)
            )
            self._read_tasks(session, None if scan else self._since)
            if not known:
                self._show_flat()
            self._read_cells(session, now, everything=scan)
        self._commits, self._read_at, self._since = seen, now, began - _OVERLAP
        if scan:
            self._scanned, self._scan_cost = now, time.monotonic() - now

    def _read_runs(self, session: Session) -> bool:
        """Read the runs that are shown; return whether the state of the run in focus has changed."""
        query = (
            select(*_RUN_COLUMNS)
            .outerjoin(DagVersion, DagVersion.id == DagRun.created_dag_version_id)
            .outerjoin(DagRunNote, DagRunNote.dag_run_id == DagRun.id)
            .where(DagRun.dag_id == self.dag_id)
        )
        # The run in focus may be older than these; then it is shown after them.
        rows = list(
            session.execute(query.order_by(DagRun.run_after.desc(), DagRun.id.desc()).limit(self.window))
        )
        if all(row.run_id != self.run_id for row in rows):
            rows += session.execute(query.where(DagRun.run_id == self.run_id))
        tracker = self._tracker
        known = tracker.runs.values.get(self.run_id)
        for row in rows:
            tracker.runs.put(row.run_id, _run(row), tracker.reading)
        tracker.order = [row.run_id for row in rows]
        tracker.runs.keep(tracker.order, tracker.reading)
        self._rows = {row.run_id: row for row in rows}
        if self.run_id not in self._rows:
            raise RunNotFoundError(
                f"DAG {self.dag_id!r} has no run {self.run_id!r}.",
                hint="It may have been deleted.",
                dag_id=self.dag_id,
                run_id=self.run_id,
            )
        return known is None or known["state"] != str(self._rows[self.run_id].state)

    def _read_structure(self, session: Session) -> bool:
        """Read the DAG in the version of the run in focus; return whether it is in the database."""
        dag_run = session.get_one(DagRun, self._rows[self.run_id].id)
        dag = dag_of_run(dag_run, session)
        # `dag_of_run` returns the same object for the same version, as long as its cache has it.
        if dag is not None and dag is not self._dag:
            if dag_run.bundle_version and dag_run.created_dag_version_id:
                version = session.get(DagVersion, dag_run.created_dag_version_id)
            else:
                version = DagVersion.get_latest_version(self.dag_id, session=session)
            self._show({"version": version and version.version_number, **get_structure(dag)})
        self._dag = dag
        return dag is not None

    def _show_flat(self) -> None:
        operators = {task["task_id"]: task["operator"] for task in self._tracker.tasks.values.values()}
        self._show({"version": None, **build_flat_structure(sorted(operators.items()))})

    def _show(self, structure: Structure) -> None:
        if self._tracker.set_structure(structure):
            # A task may be in another group now: all are read again.
            self._versions.clear()

    def _read_tasks(self, session: Session, since: datetime | None) -> None:
        of_run = and_(TI.dag_id == self.dag_id, TI.run_id == self.run_id)
        query = select(*TASK_QUERY, TI.updated_at).where(of_run)
        if since is not None:
            rows = session.execute(query.where(TI.updated_at >= since)).all()
            self._put([row for row in rows if self._versions.get(_key(row)) != _version(row)], session)
            count = session.scalar(select(func.count()).select_from(TI).where(of_run))
            if count == len(self._tracker.tasks.values):
                return
            # A longer transaction has added some, or some are gone: an expansion reuses a row.
        versions = select(TI.task_id, TI.map_index, TI.state, TI.updated_at).where(of_run)
        there = {(row[0], row[1]): (row[2], row[3]) for row in session.execute(versions)}
        outdated = [key for key, version in there.items() if self._versions.get(key) != version]
        if len(outdated) < _MANY:
            query = query.where(tuple_(TI.task_id, TI.map_index).in_(outdated))
        if outdated:
            self._put(session.execute(query).all(), session)
        self._versions = {key: known for key, known in self._versions.items() if key in there}
        self._tracker.tasks.keep(there, self._tracker.reading)

    def _put(self, rows: Iterable[_Row], session: Session) -> None:
        rows = list(rows)
        former = self._former_tries({row.task_id for row in rows}, session)
        for row in rows:
            key = _key(row)
            task = _task(row, self._tracker.group_of(row.task_id), former.get(key, ()))
            self._tracker.tasks.put(key, task, self._tracker.reading)
            self._versions[key] = _version(row)

    def _former_tries(self, task_ids: set[str], session: Session) -> dict[Key, list[FormerTry]]:
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
        tries: dict[Key, list[FormerTry]] = defaultdict(list)
        for task_id, map_index, number, state, *moments in session.execute(query):
            tries[task_id, map_index].append([number, state, *map(iso, moments)])
        return tries

    def _read_cells(self, session: Session, now: float, *, everything: bool) -> None:
        """Count the states of the tasks of other runs, if they are unfinished or their row has changed."""
        wanted = []
        for run_id, row in self._rows.items():
            counted, at = self._counted.get(run_id, (None, 0.0))
            is_due = row.state not in FINAL_RUN_STATES and now - at >= _READ_SECONDS
            if run_id != self.run_id and (everything or is_due or counted != row):
                wanted.append(run_id)
                self._counted[run_id] = (row, now)
        counts: dict[tuple[str, str], Counts] = defaultdict(dict)
        if wanted:
            query = (
                select(TI.run_id, TI.task_id, TI.state, func.count())
                .where(TI.dag_id == self.dag_id, TI.run_id.in_(wanted))
                .group_by(TI.run_id, TI.task_id, TI.state)
            )
            for run_id, task_id, state, count in session.execute(query):
                counts[run_id, task_id][state or "no_status"] = count
        tracker = self._tracker
        for key, states in counts.items():
            tracker.cells.put(key, states, tracker.reading)
        untouched = (key for key in tracker.cells.values if key[0] in self._rows and key[0] not in wanted)
        tracker.cells.keep([*counts, *untouched], tracker.reading)


def _run(row: _Row) -> GridRun:
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


def _key(row: _Row) -> Key:
    return row.task_id, row.map_index


def _version(row: _Row) -> _Version:
    return row.state, row.updated_at


def _task(row: _Row, group: str | None, history: Sequence[FormerTry]) -> GridTask:
    # While a task waits for its next try, the history has its latest try, too.
    waits = row.state == "up_for_retry"
    tries = [one for one in history if one[0] < row.try_number + (not waits)]
    queued, start = tries[-1][2:4] if tries and not waits else (None, None)
    task = task_row(row, group)
    return {**task, **own_times(task, queued, start), "tries": tries}


class GridViews:
    """
    The views of the gateway's callers. Safe to use from several threads.

    A lock protects the table of views and is never held while one of them reads; each view has its own lock. Views that
    weren't requested for ten minutes are dropped.

    Parameters
    ----------
    pages
        Returns the addresses of UIs, by name.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._views: OrderedDict[tuple[str, str, int], tuple[float, GridView]] = OrderedDict()
        self._lock = Lock()

    def changes(self, request: GetGridChanges) -> tuple[GridChanges, bool]:
        """Return what has changed in a grid after the caller's cursor, and whether anything has."""
        view = self._view(request.dag_id, request.run_id, request.runs)
        return view.changes(request.after, self._pages())

    def _view(self, dag_id: str, run_id: str, window: int) -> GridView:
        key, now = (dag_id, run_id, window), time.monotonic()
        with self._lock:
            view = self._views.pop(key)[1] if key in self._views else GridView(*key)
            self._views[key] = now, view
            while len(self._views) > _VIEWS or next(iter(self._views.values()))[0] < now - _FORGOTTEN_AFTER:
                self._views.popitem(last=False)
        return view
