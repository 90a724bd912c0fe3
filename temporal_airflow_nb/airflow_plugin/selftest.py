"""Tests, on the database at hand, that a stock scheduler keeps off our runs. Everything is rolled back."""

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
_LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)
_FIRST_OF_ALL = 2**31 - 1


def run() -> None:
    """
    Check versions, signatures, tables and, with rows of its own, what the hooks do.

    Raises
    ------
    UnsupportedVersionError
        A hook doesn't hold: Airflow would run tasks that Temporal runs.
    InvalidInputError
        Our tables are missing.
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
    session_listeners.install()
    scheduler_filters.install()
    with _rolled_back() as session:
        _add_runs(session)
        _expect(
            "take-over",
            session.scalars(
                select(tables.outbox.c.run_id).filter_by(dag_id=_DAG_ID, kind=outbox.START)
            ).all(),
            [_MANAGED, *_ours_by_configuration(session)],
        )
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
        acquire(session, DatabaseLock.ASSIGN_SLOTS)
        queued = scheduler()._executable_task_instances_to_queued(max_tis=1, session=session)
        _expect("queueing tasks", [ti.run_id for ti in queued], [_OTHER])


@contextmanager
def _rolled_back() -> Iterator[Session]:
    from airflow import settings

    session = settings.NonScopedSession()
    try:
        yield session
    finally:
        session.rollback()
        session.close()


def _add_runs(session: Session) -> None:
    """Add a run of each kind, have it go from queued to running, and give each a task that may start."""
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
    for run in runs:
        run.state = DagRunState.RUNNING
    session.flush()
    table: Any = TaskInstance.__table__
    for run in runs:
        task = {"dag_id": _DAG_ID, "run_id": run.run_id, "task_id": "task", "map_index": -1, "pool": _DAG_ID}
        session.execute(
            table.insert().values(
                **task, pool_slots=1, priority_weight=_FIRST_OF_ALL, state=TaskInstanceState.SCHEDULED
            )
        )


def _add_schedules(session: Session) -> None:
    """Add two DAGs with a run that is due, one of them with a schedule in Temporal."""
    from airflow.models.dag import DagModel

    from temporal_airflow_nb.orchestration.schedules import records

    native = _DAG_ID + "native"
    for dag_id in (native, _OTHER_ID):
        due = {"is_paused": False, "is_stale": False, "next_dagrun_create_after": _LONG_AGO}
        session.add(DagModel(dag_id=dag_id, bundle_name=_DAG_ID, **due))
    session.flush()
    records.save_record(records.ScheduleRecord(native, native, "", None), session)


def _ours_by_configuration(session: Session) -> list[str]:
    from temporal_airflow_nb.orchestration.outbox.rollout import configured_rollout

    chosen = configured_rollout()
    return [_OTHER] if chosen is not None and chosen.managed({_DAG_ID}, session) else []


def _expect(what: str, found: Any, expected: list[str]) -> None:
    if sorted(found) != sorted(expected):
        raise UnsupportedVersionError(
            f"The self-test of {what} failed: Airflow would run tasks that Temporal runs"
            f" (found {sorted(found)}, expected {sorted(expected)}).",
            hint=scheduler_filters.FALLBACK_HINT,
        )
