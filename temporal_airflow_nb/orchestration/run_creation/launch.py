"""Creating a run and handing it to Temporal, where no scheduler process does."""

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
from temporal_airflow_nb.orchestration.outbox.restriction import restricted, run_is_managed
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
    Create a manual run of a DAG that is in the database, and have Temporal execute it.

    Without a ``logical_date`` it is now, as for Airflow's trigger button: templates such as ``{{ ds }}`` need one.
    ``on_worker_lost`` is the run's own, in place of the worker's setting.

    Returns
    -------
    str
        The run's id.

    Raises
    ------
    DagNotFoundError
        There is no such DAG.
    InvalidConfError
        The DAG's params don't accept ``conf``.
    InvalidInputError
        ``run_id`` can't be used, or exists already.
    """
    from airflow.api.common.trigger_dag import _trigger_dag
    from airflow.exceptions import DagNotFound, DagRunAlreadyExists, ParamValidationError

    with transaction() as session:
        model = session.get(DagModel, dag_id)
        if model is None:
            raise DagNotFoundError(
                f"no DAG {dag_id!r}", hint="See the DAGs there are: airflow dags list", dag_id=dag_id
            )
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
                    f"DAG {dag_id!r} has a run of {logical_date.isoformat()} already",
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
            raise DagNotFoundError(f"no DAG {dag_id!r}", dag_id=dag_id) from None
        except DagRunAlreadyExists:
            raise InvalidInputError(
                f"DAG {dag_id!r} has a run {run_id!r} already", hint="Choose another run id.", run_id=run_id
            ) from None
        except ParamValidationError as error:
            raise InvalidConfError.of_params(dag_id, error) from None
        except ValueError as error:
            raise InvalidInputError(str(error), run_id=run_id) from None
        created = dag_run.run_id
        managed_runs.assign(dag_id, created, session, on_worker_lost=on_worker_lost)
    start_queued_runs()
    return created


def _has_run_at(dag_id: str, logical_date: datetime, session: Session) -> bool:
    found = select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.logical_date == logical_date)
    return session.scalar(found) is not None


def start_queued_runs() -> int:
    """
    Move queued runs to running as far as ``max_active_runs`` allows, as Airflow's scheduler does, and take them over.

    Beside a scheduler of Airflow, those are the runs that are ours, or are to be. Returns how many there were. What
    stays queued is looked at again when a run ends.
    """
    with transaction() as session:
        queued = session.execute(
            select(DagRun.id, DagRun.dag_id, DagRun.run_id).where(
                DagRun.state == DagRunState.QUEUED,
                or_(run_is_managed(DagRun), DagRun.dag_id.in_(_ours(session))),
            )
        ).all()
        if not queued:
            return 0
        candidates = [row.id for row in queued]
        acquire(session, DatabaseLock.START_RUNS)
        with (
            _sub_seconds(candidates, session),
            restricted(DagRun.__tablename__, lambda entity: entity.id.in_(candidates)),
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


def _ours(session: Session) -> set[str]:
    """Return the DAGs with queued runs that Temporal executes."""
    dag_ids = set(session.scalars(select(DagRun.dag_id).where(DagRun.state == DagRunState.QUEUED).distinct()))
    chosen = rollout.in_force()
    return chosen.managed(dag_ids, session) if chosen is not None else set()


@contextmanager
def _sub_seconds(candidates: list[int], session: Session) -> Iterator[None]:
    """On SQLite, where Airflow compares with the current second, have runs of this moment not wait for the next."""
    if session.get_bind().dialect.name != "sqlite":
        yield
        return
    now = timezone.utcnow()
    second = now.replace(microsecond=0)
    fresh = session.execute(
        select(DagRun.id, DagRun.run_after)
        .where(
            DagRun.id.in_(candidates),
            DagRun.run_after >= second,
            DagRun.run_after <= now,
        )
        .order_by(DagRun.run_after.desc())
    ).all()
    # The oldest still comes first, and after those of earlier seconds.
    for place, (run_id, _) in enumerate(fresh, 1):
        _set_run_after(run_id, second - timedelta(microseconds=place), session)
    yield
    for run_id, run_after in fresh:
        _set_run_after(run_id, run_after, session)


def _set_run_after(run: int, moment: datetime, session: Session) -> None:
    session.execute(
        update(DagRun)
        .where(DagRun.id == run)
        .values(run_after=moment)
        .execution_options(synchronize_session=False)
    )
