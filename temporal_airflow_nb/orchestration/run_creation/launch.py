"""Create runs for the gateway, start queued runs, and assign the started ones to Temporal.

It runs in the worker process or in a gateway process. Queued runs are started after each event that can free a place
under ``max_active_runs``, and by a worker's loops. A transaction that starts runs holds the lock ``START_RUNS`` until
its commit; Airflow's schedulers take the same lock (``airflow_plugin/scheduler_filters.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from airflow._shared.timezones import timezone
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import or_, select, update

from temporal_airflow_nb.errors import DagNotFoundError, InvalidConfError, InvalidInputError
from temporal_airflow_nb.orchestration.outbox import managed_runs, rollout
from temporal_airflow_nb.orchestration.outbox.locks import DatabaseLock, acquire
from temporal_airflow_nb.orchestration.outbox.query_restriction import restrict_queries, run_is_managed
from temporal_airflow_nb.orchestration.scheduling.airflow_scheduler import scheduler
from temporal_airflow_nb.tasks.dags import dag_bag
from temporal_airflow_nb.tasks.database import transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = structlog.get_logger(__name__)


def create_run(
    dag_id: str,
    *,
    conf: dict[str, Any] | None = None,
    run_id: str | None = None,
    logical_date: datetime | None = None,
    on_worker_lost: str | None = None,
) -> str:
    """
    Create a manual run of a DAG that is in the database, and assign it to Temporal.

    ``logical_date`` is now if omitted, as with Airflow's trigger button: templates such as ``{{ ds }}`` need one.
    ``on_worker_lost`` overrides the worker's setting for this run.

    Returns
    -------
    str
        The id of the run.

    Raises
    ------
    DagNotFoundError
        The database has no such DAG.
    InvalidConfError
        The DAG's params don't accept ``conf``.
    InvalidInputError
        ``run_id`` is malformed, or the DAG has a run with this id or logical date already.
    """
    from airflow.api.common.trigger_dag import _trigger_dag
    from airflow.exceptions import DagNotFound, DagRunAlreadyExists, ParamValidationError

    with transaction() as session:
        model = session.get(DagModel, dag_id)
        if model is None:
            raise DagNotFoundError(
                f"There is no DAG {dag_id!r}.", hint="List the DAGs with `airflow dags list`.", dag_id=dag_id
            )
        # A user who starts a run wants it to run: the runs of a paused DAG stay queued.
        model.is_paused = False
        session.flush()
        now = timezone.utcnow()
        try:
            if (
                run_id is None
                and (dag := dag_bag().get_latest_version_of_dag(dag_id, session=session)) is not None
            ):
                run_id = dag.timetable.generate_run_id(
                    run_type=DagRunType.MANUAL, run_after=now, data_interval=None
                )
            if logical_date is not None and _has_run_at(dag_id, logical_date, session):
                raise InvalidInputError(
                    f"DAG {dag_id!r} already has a run with the logical date {logical_date.isoformat()}.",
                    hint="Choose another logical date.",
                    logical_date=logical_date.isoformat(),
                )
            dag_run = _trigger_dag(
                dag_id,
                dag_bag(),
                triggered_by=DagRunTriggeredByType.CLI,
                run_id=run_id,
                run_after=now,
                logical_date=logical_date or now,
                replace_microseconds=False,
                conf=conf,
                session=session,
            )
        except DagNotFound:
            raise DagNotFoundError(
                f"There is no DAG {dag_id!r}.", hint="List the DAGs with `airflow dags list`.", dag_id=dag_id
            ) from None
        except DagRunAlreadyExists:
            raise InvalidInputError(
                f"DAG {dag_id!r} already has a run {run_id!r}.", hint="Choose another run id.", run_id=run_id
            ) from None
        except ParamValidationError as error:
            raise InvalidConfError.of_params(dag_id, error) from None
        except ValueError as error:
            raise InvalidInputError(str(error), run_id=run_id) from None
        # In the transaction that creates the run: no scheduler can start it before it is assigned.
        created: str = dag_run.run_id
        managed_runs.assign(dag_id, created, session, on_worker_lost=on_worker_lost)
    # After the commit: it works in a transaction of its own, which must see the run.
    start_queued_runs()
    return created


def _has_run_at(dag_id: str, logical_date: datetime, session: Session) -> bool:
    query = select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.logical_date == logical_date)
    return session.scalar(query) is not None


def start_queued_runs() -> int:
    """
    Start queued runs as far as ``max_active_runs`` allows, and assign them to Temporal.

    It considers the runs that are managed, and the runs of DAGs that Temporal executes. A run that stays queued is
    considered again when another run ends.

    Returns
    -------
    int
        The number of started runs.
    """
    with transaction() as session:
        queued = session.execute(
            select(DagRun.id, DagRun.dag_id, DagRun.run_id).where(
                DagRun.state == DagRunState.QUEUED,
                or_(run_is_managed(DagRun), DagRun.dag_id.in_(_list_managed_dags(session))),
            )
        ).all()
        # On PostgreSQL, calls with nothing to start don't wait for the lock. A candidate that another process starts
        # meanwhile is no longer queued when Airflow's search runs below, under the lock.
        if not queued:
            return 0
        candidates = [row.id for row in queued]
        acquire(session, DatabaseLock.START_RUNS)
        # `_start_queued_dagruns` of Airflow's scheduler checks pauses and the limits of DAGs and backfills. Its search
        # returns 20 runs at most; without the restriction, queued runs that aren't candidates could fill these places.
        with (
            _without_fractions_of_seconds(candidates, session),
            restrict_queries(DagRun.__tablename__, lambda entity: entity.id.in_(candidates)),
        ):
            scheduler()._start_queued_dagruns(session)
            session.flush()
        started = session.execute(
            select(DagRun.dag_id, DagRun.run_id).where(
                DagRun.id.in_(candidates), DagRun._state == DagRunState.RUNNING
            )
        ).all()
        for dag_id, run_id in started:
            managed_runs.take_over(dag_id, run_id, session)
        return len(started)


def _list_managed_dags(session: Session) -> set[str]:
    """Return the DAGs that have queued runs and whose runs Temporal executes."""
    dag_ids = set(session.scalars(select(DagRun.dag_id).where(DagRun.state == DagRunState.QUEUED).distinct()))
    active = rollout.active_rollout()
    return active.managed(dag_ids, session) if active is not None else set()


@contextmanager
def _without_fractions_of_seconds(candidates: list[int], session: Session) -> Iterator[None]:
    """
    On SQLite, let runs that became due within the current second start now.

    Airflow's ``get_queued_dag_runs_to_set_running`` compares ``run_after`` with SQL's ``now()``, which SQLite returns
    without the fraction of the second: it would start them in the next second. Inside the block, such runs have an
    earlier ``run_after``. No other process sees it: it is restored before the commit, or rolled back after an error.
    """
    if session.get_bind().dialect.name != "sqlite":
        yield
        return
    now = timezone.utcnow()
    second = now.replace(microsecond=0)
    due_now = session.execute(
        select(DagRun.id, DagRun.run_after)
        .where(
            DagRun.id.in_(candidates),
            DagRun.run_after >= second,
            DagRun.run_after <= now,
        )
        .order_by(DagRun.run_after.desc())
    ).all()
    # Airflow starts runs in the order of `run_after`: the order among these, and after those of earlier seconds, stays.
    for place, (run_id, _) in enumerate(due_now, 1):
        _set_run_after(run_id, second - timedelta(microseconds=place), session)
    yield
    for run_id, run_after in due_now:
        _set_run_after(run_id, run_after, session)


def _set_run_after(run: int, moment: datetime, session: Session) -> None:
    # Not synchronized: a loaded DagRun never counts as changed by this, and no flush writes the earlier time again.
    session.execute(
        update(DagRun)
        .where(DagRun.id == run)
        .values(run_after=moment)
        .execution_options(synchronize_session=False)
    )
