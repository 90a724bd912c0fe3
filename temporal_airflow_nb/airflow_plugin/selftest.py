"""A test on the real database that a stock scheduler skips the runs that Temporal executes.

It runs in the scheduler's process before its first loop, and in ``airflow temporal doctor``. It adds rows of its own,
calls the wrapped functions of Airflow, and rolls everything back: its session never commits, so that no other process
sees the rows. While it runs, other transactions wait for the lock ``ASSIGN_SLOTS``; on SQLite, for the write lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect, select

from temporal_airflow_nb.airflow_plugin import scheduler_filters, session_listeners
from temporal_airflow_nb.config.airflow_version import check_airflow
from temporal_airflow_nb.errors import UnsupportedVersionError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_DAG_ID = "__temporal_airflow_selftest__"
_OTHER_ID = _DAG_ID + "other"
_MANAGED, _OTHER = "managed", "other"
# Rows with these values come first in Airflow's searches, which return a limited number of rows.
_LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)
_HIGHEST_PRIORITY = 2**31 - 1


def run() -> None:
    """
    Check versions, signatures and tables, and test the hooks with temporary rows.

    Raises
    ------
    UnsupportedVersionError
        A hook doesn't work: Airflow would run tasks that Temporal runs.
    InvalidInputError
        The tables of this package are missing.
    """
    from airflow import settings
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun

    from temporal_airflow_nb.config.environment import native_scheduling
    from temporal_airflow_nb.orchestration.outbox import managed_runs, outbox, tables
    from temporal_airflow_nb.orchestration.outbox.locks import DatabaseLock, acquire
    from temporal_airflow_nb.orchestration.scheduling.airflow_scheduler import scheduler

    check_airflow()
    assert settings.engine is not None
    if not inspect(settings.engine).has_table(tables.outbox.name):
        raise tables.missing_tables()
    # A scheduler has done both already; the process of the doctor has no filters yet.
    session_listeners.install()
    scheduler_filters.install()
    with _rolled_back() as session:
        _add_runs(session)
        _expect(
            "taking over runs",
            session.scalars(
                select(tables.outbox.c.run_id).filter_by(dag_id=_DAG_ID, kind=outbox.START)
            ).all(),
            [_MANAGED, *_list_taken_over_by_configuration(session)],
        )
        # With the default configuration, the other run was taken over too: it becomes unmanaged here.
        managed_runs.unassign(_DAG_ID, _OTHER, session)
        examined = DagRun.get_running_dag_runs_to_examine(session=session)
        _expect("examining runs", [run.run_id for run in examined if run.dag_id == _DAG_ID], [_OTHER])
        if native_scheduling():
            _add_schedules(session)
            needing, _ = DagModel.dags_needing_dagruns(session)
            _expect(
                "creating runs",
                [dag.dag_id for dag in needing if dag.dag_id.startswith(_DAG_ID)],
                [_OTHER_ID],
            )
        # Airflow only tries this lock, and would raise an error if a worker or another scheduler has it.
        acquire(session, DatabaseLock.ASSIGN_SLOTS)
        queued = scheduler()._executable_task_instances_to_queued(max_tis=1, session=session)
        _expect("queueing tasks", [ti.run_id for ti in queued], [_OTHER])


@contextmanager
def _rolled_back() -> Iterator[Session]:
    from airflow import settings

    # Not `transaction()`, which would commit.
    session = settings.NonScopedSession()
    try:
        yield session
    finally:
        session.rollback()
        session.close()


def _add_runs(session: Session) -> None:
    """Add a managed and an unmanaged run, start both, and add a task that may start to each."""
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.models.pool import Pool
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.state import DagRunState, TaskInstanceState

    from temporal_airflow_nb.orchestration.outbox import managed_runs

    session.add(DagBundleModel(name=_DAG_ID))
    session.add(Pool(pool=_DAG_ID, slots=1, include_deferred=False))
    session.flush()
    dag = {"is_paused": False, "is_stale": False, "max_active_tasks": 9, "has_task_concurrency_limits": False}
    session.add(DagModel(dag_id=_DAG_ID, bundle_name=_DAG_ID, **dag))
    session.flush()
    runs = [
        DagRun(
            dag_id=_DAG_ID, run_id=run_id, run_type="manual", run_after=_LONG_AGO, state=DagRunState.QUEUED
        )
        for run_id in (_MANAGED, _OTHER)
    ]
    session.add_all(runs)
    session.flush()
    managed_runs.assign(_DAG_ID, _MANAGED, session)
    # Through the ORM, as Airflow does: `session_listeners` observes flushes.
    for run in runs:
        run.state = DagRunState.RUNNING
    session.flush()
    # Through the table: the constructor of TaskInstance needs an operator.
    table: Any = TaskInstance.__table__
    for run in runs:
        task = {"dag_id": _DAG_ID, "run_id": run.run_id, "task_id": "task", "map_index": -1, "pool": _DAG_ID}
        session.execute(
            table.insert().values(
                **task, pool_slots=1, priority_weight=_HIGHEST_PRIORITY, state=TaskInstanceState.SCHEDULED
            )
        )


def _add_schedules(session: Session) -> None:
    """Add two DAGs with a due run, one of them with a Temporal Schedule."""
    from airflow.models.dag import DagModel

    from temporal_airflow_nb.orchestration.schedules import records

    native = _DAG_ID + "native"
    for dag_id in (native, _OTHER_ID):
        due = {"is_paused": False, "is_stale": False, "next_dagrun_create_after": _LONG_AGO}
        session.add(DagModel(dag_id=dag_id, bundle_name=_DAG_ID, **due))
    session.flush()
    records.save_record(records.ScheduleRecord(native, native, "", None), session)


def _list_taken_over_by_configuration(session: Session) -> list[str]:
    """Return the unmanaged run if the configuration leaves new runs of its DAG to Temporal."""
    from temporal_airflow_nb.orchestration.outbox.rollout import configured_rollout

    rollout = configured_rollout()
    return [_OTHER] if rollout is not None and rollout.managed({_DAG_ID}, session) else []


def _expect(step: str, found: Any, expected: list[str]) -> None:
    if sorted(found) != sorted(expected):
        raise UnsupportedVersionError(
            f"The self-test of {step} failed: Airflow would run tasks that Temporal runs"
            f" (found {sorted(found)}, expected {sorted(expected)}).",
            hint=scheduler_filters.FALLBACK_HINT,
        )
