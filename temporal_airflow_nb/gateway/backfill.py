"""Creates Airflow backfills: one run, executed by Temporal, for each date of a DAG's schedule.

Runs in a thread of the gateway's pool. A backfill takes three transactions, because the function of Airflow that
creates the runs opens its own session. If the process dies between the second and the third one, the runs exist and are
queued, but aren't assigned to Temporal.
"""

from __future__ import annotations

from datetime import datetime

from airflow.exceptions import AirflowException, DagNotFound
from airflow.models import backfill as airflow_backfill
from airflow.models.backfill import Backfill, BackfillDagRun, ReprocessBehavior
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from sqlalchemy import select

from temporal_airflow_nb.errors import DagNotFoundError, InvalidConfError, InvalidInputError
from temporal_airflow_nb.messages.requests import JsonObject
from temporal_airflow_nb.orchestration.outbox import managed_runs, rollout
from temporal_airflow_nb.orchestration.run_creation.launch import start_queued_runs
from temporal_airflow_nb.orchestration.scheduling.airflow_scheduler import scheduler
from temporal_airflow_nb.tasks.database import block_other_writers, transaction

_HINTS = {
    airflow_backfill.DagNonPeriodicScheduleException: 'Give it a schedule: @dag(schedule="@daily", start_date=…).',
    airflow_backfill.AlreadyRunningBackfill: "Wait for its runs to end, or cancel them.",
    airflow_backfill.InvalidBackfillDateRange: "Give the earlier date first: --backfill START END.",
    airflow_backfill.InvalidBackfillDate: "Choose dates in the past.",
    airflow_backfill.NoBackfillRunsToCreate: "The schedule has no date between these whose interval is over.",
}


def create_backfill(
    dag_id: str,
    *,
    start: datetime,
    end: datetime,
    conf: JsonObject | None = None,
    on_worker_lost: str | None = None,
) -> list[str]:
    """
    Create and launch a run for each date of a DAG's schedule from ``start`` to ``end``.

    Both dates are included. Dates that have a run already run again, with the latest version of the DAG. As many runs
    are active at a time as the DAG's ``max_active_runs`` allows.

    Returns
    -------
    list of str
        The runs' ids, earliest date first.

    Raises
    ------
    InvalidInputError
        The DAG has no schedule, the dates can't be used, or another backfill of the DAG hasn't ended.
    InvalidConfError
        The DAG's params refuse ``conf``.
    """
    with transaction() as session:
        model = session.get(DagModel, dag_id)
        if model is None:
            raise DagNotFoundError(f"There is no DAG {dag_id!r}.", dag_id=dag_id)
        # The runs of a paused DAG stay queued.
        model.is_paused = False
        max_active_runs = model.max_active_runs
        # Without a scheduler, nothing else completes the DAG's former backfill, and Airflow allows one at a time.
        if rollout.runs_without_airflow_scheduler():
            scheduler()._mark_backfills_complete(session=session)
    # After the commit above: on SQLite, the session that Airflow opens here would wait in vain for the write lock.
    with block_other_writers():
        created = _create(dag_id, start, end, max_active_runs, conf or {})
    with transaction() as session:
        run_ids = list(
            session.scalars(
                select(DagRun.run_id)
                .join(BackfillDagRun, BackfillDagRun.dag_run_id == DagRun.id)
                .where(BackfillDagRun.backfill_id == created.id)
                .order_by(BackfillDagRun.sort_ordinal)
            )
        )
        for run_id in run_ids:
            managed_runs.assign(dag_id, run_id, session, on_worker_lost=on_worker_lost)
    # After the commit: it opens its own transaction, which has to see that the runs are assigned.
    start_queued_runs()
    return run_ids


def _create(dag_id: str, start: datetime, end: datetime, max_active_runs: int, conf: JsonObject) -> Backfill:
    try:
        # Airflow has no public function for this: its REST API and its command call the same private one.
        return airflow_backfill._create_backfill(
            dag_id=dag_id,
            from_date=start,
            to_date=end,
            max_active_runs=max_active_runs,
            reverse=False,
            dag_run_conf=conf,
            triggering_user_name=None,
            reprocess_behavior=ReprocessBehavior.COMPLETED,
            run_on_latest_version=True,
        )
    except DagNotFound:
        raise DagNotFoundError(f"There is no DAG {dag_id!r}.", dag_id=dag_id) from None
    except airflow_backfill.InvalidBackfillConf as error:
        raise InvalidConfError.of_params(dag_id, error) from None
    except (AirflowException, ValueError) as error:
        raise InvalidInputError(
            f"DAG {dag_id!r} can't be backfilled: {error}", hint=_HINTS.get(type(error), ""), dag_id=dag_id
        ) from None
