"""Create the due runs of DAGs with a Temporal Schedule; Airflow's code decides which are due.

It runs in threads of the worker: in an activity that a Schedule starts, after the end of a run, and in the loop of
``ScheduleSynchronizer``. Each transaction locks the DAG's row first.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow._shared.timezones import timezone
from airflow.dag_processing.collection import _RunInfo
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunType
from sqlalchemy import and_, func, or_, select

from temporal_airflow_nb.orchestration.run_creation.launch import start_queued_runs
from temporal_airflow_nb.orchestration.schedules.records import is_natively_scheduled, select_native_dag_ids
from temporal_airflow_nb.orchestration.scheduling.airflow_scheduler import scheduler
from temporal_airflow_nb.orchestration.workflow.models import DueRuns
from temporal_airflow_nb.tasks.database import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

# The default of `[dag_processor] min_file_process_interval`. When Airflow's DAG processor parses the file of a DAG
# without catchup, it replaces missed runs by the latest one that is due.
_PARSING_INTERVAL = timedelta(seconds=30)
# A Schedule has this long to fire before its run counts as overdue.
_GRACE = timedelta(seconds=2)


def create_due_runs(dag_id: str) -> DueRuns:
    """
    Create and start the due runs of a DAG, as far as ``max_active_runs`` allows.

    Each run commits together with the DAG's next date, under a lock on the DAG's row: however often this is called, and
    from however many processes, a run is created once.
    """
    created = 0
    while True:
        with transaction() as session:
            model = session.scalar(
                select(DagModel).where(DagModel.dag_id == dag_id).with_for_update(of=DagModel)
            )
            if model is None or not is_natively_scheduled(dag_id, session) or not _may_create(model, session):
                due_in = None
                break
            _skip_missed_runs(model, session)
            due = model.next_dagrun_create_after
            due_in = None if due is None else (due - timezone.utcnow()).total_seconds()
            if due_in is None or due_in > 0:
                break
            scheduler()._create_dag_runs([model], session)
            session.flush()
            # Without this check, the loop would try the same run without end.
            if model.next_dagrun_create_after == due:
                # Airflow couldn't create it, and has logged the reason.
                due_in = None
                break
            created += 1
    # After the commits: another transaction, with the lock START_RUNS, which precedes the locks on rows.
    if created:
        start_queued_runs()
    return DueRuns(created, due_in)


def _may_create(model: DagModel, session: Session) -> bool:
    if model.is_paused or model.is_stale or model.has_import_errors:
        return False
    if model.exceeds_max_non_backfill:
        # Airflow updates this column when it next parses the file. A user may have ended a run since.
        scheduler()._set_exceeds_max_active_runs(dag_model=model, session=session)
    return not model.exceeds_max_non_backfill


def _skip_missed_runs(model: DagModel, session: Session) -> None:
    """Without catchup, skip to the latest run that is due, as Airflow's DAG processor does."""
    due = model.next_dagrun_create_after
    if due is None or due > timezone.utcnow() - _PARSING_INTERVAL:
        return
    dag = scheduler()._get_current_dag(model.dag_id, session)
    if dag is not None and not dag.catchup:
        latest = _RunInfo.calculate(dag, session=session).latest_run
        model.calculate_dagrun_date_fields(dag, reference_run=latest)


def list_overdue_dags() -> list[str]:
    """Return the DAGs with a due run that no Schedule has created.

    The Schedule has missed it, or ``max_active_runs`` has delayed it.
    """
    active = (
        select(func.count())
        .select_from(DagRun)
        .where(
            DagRun.dag_id == DagModel.dag_id,
            DagRun.state.in_((DagRunState.QUEUED, DagRunState.RUNNING)),
            DagRun.run_type != DagRunType.BACKFILL_JOB,
        )
        .scalar_subquery()
    )
    with reading() as session:
        return list(
            session.scalars(
                select(DagModel.dag_id).where(
                    DagModel.dag_id.in_(select_native_dag_ids()),
                    DagModel.next_dagrun_create_after <= timezone.utcnow() - _GRACE,
                    and_(~DagModel.is_paused, ~DagModel.is_stale, ~DagModel.has_import_errors),
                    or_(~DagModel.exceeds_max_non_backfill, active < DagModel.max_active_runs),
                )
            )
        )
