"""Create the runs that asset events ask for, for an Airflow without a scheduler.

The loop runs on the worker's event loop; each of its steps is a transaction in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from airflow._shared.timezones import timezone
from airflow.models.asset import AssetEvent, AssetPartitionDagRun
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.utils.state import DagRunState
from sqlalchemy import event, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import object_session

from temporal_airflow_nb.orchestration.run_creation.launch import start_queued_runs
from temporal_airflow_nb.orchestration.scheduling.airflow_scheduler import scheduler
from temporal_airflow_nb.tasks.database import after_commit, reading, transaction

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

log = structlog.get_logger(__name__)

_CHECK_SECONDS = 30.0


class TriggeredRunCreator:
    """
    The loop that creates the runs that asset events ask for, and starts queued runs.

    It checks the database after this process has committed an asset event or a change of a run, when a queued run
    becomes due, and every 30 seconds for the changes of other processes.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Check the database soon; may be called from any thread."""
        self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Check the database until cancelled."""
        _call_after_changes(self.wake)
        while True:
            pause = _CHECK_SECONDS
            try:
                await asyncio.to_thread(create_asset_triggered_runs)
                await asyncio.to_thread(start_queued_runs)
                due = await asyncio.to_thread(_find_next_due)
                if due is not None:
                    pause = min(pause, (due - timezone.utcnow()).total_seconds() + 0.01)
            except Exception as error:
                # Nothing restarts this loop.
                log.warning(
                    "Could not create or start runs; trying again",
                    error=repr(error),
                    exc_info=not isinstance(error, SQLAlchemyError),
                )
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, pause))
            self._wake.clear()


def _call_after_changes(wake: Callable[[], None]) -> None:
    """Call ``wake`` after each commit that may ask for a new run or free a place for one."""

    # Called in the thread that flushes. A run that goes to running frees no place.
    def call_after_commit(_: Any, __: Any, changed: Any) -> None:
        if isinstance(changed, DagRun) and changed.state == DagRunState.RUNNING:
            return
        if (session := object_session(changed)) is not None:
            after_commit(session, wake)

    for model in (AssetEvent, AssetPartitionDagRun, DagRun):
        event.listen(model, "after_insert", call_after_commit)
    event.listen(DagRun, "after_update", call_after_commit)


def create_asset_triggered_runs() -> None:
    """Create the runs that asset events ask for, with the code of Airflow's scheduler."""
    with transaction() as session:
        partitioned = scheduler()._create_dagruns_for_partitioned_asset_dags(session)
        due, by_assets = DagModel.dags_needing_dagruns(session)
        # Airflow limits `due` to ten DAGs, and DAGs with a time schedule may be among them. `by_assets` has every DAG
        # with events, and doesn't depend on that limit.
        due.close()
        if wanted := by_assets.keys() - partitioned:
            scheduler()._create_dag_runs_asset_triggered(
                dag_models=_list_runnable(sorted(wanted), session), session=session
            )


def _list_runnable(dag_ids: list[str], session: Session) -> list[DagModel]:
    # The conditions of `DagModel.dags_needing_dagruns`, without its limit.
    return list(
        session.scalars(
            select(DagModel)
            .where(
                DagModel.dag_id.in_(dag_ids),
                DagModel.is_paused.is_(False),
                DagModel.is_stale.is_(False),
                DagModel.has_import_errors.is_(False),
                DagModel.exceeds_max_non_backfill.is_(False),
            )
            .order_by(DagModel.dag_id)
        )
    )


def _find_next_due() -> datetime | None:
    """Return the earliest future ``run_after`` of a queued run, before which Airflow doesn't start it."""
    with reading() as session:
        earliest: datetime | None = session.scalar(
            select(func.min(DagRun.run_after)).where(
                DagRun.state == DagRunState.QUEUED, DagRun.run_after > timezone.utcnow()
            )
        )
        return earliest
