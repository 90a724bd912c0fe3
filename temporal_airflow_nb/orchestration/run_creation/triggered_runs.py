"""Runs that tasks bring about, by an event of an asset or by triggering, where no scheduler of Airflow looks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from airflow._shared.timezones import timezone
from airflow.models.asset import AssetEvent, AssetPartitionDagRun
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.utils.state import DagRunState
from sqlalchemy import event, func, select
from sqlalchemy.orm import object_session

from temporal_airflow_nb.orchestration.run_creation.launch import start_queued_runs
from temporal_airflow_nb.orchestration.scheduling.airflow_scheduler import scheduler
from temporal_airflow_nb.tasks.database import after_commit, reading, transaction

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

log = structlog.get_logger(__name__)

_LOOK_AGAIN = 30.0


class TriggeredRuns:
    """
    Creates the runs that events of assets ask for, and starts every run that is queued.

    It looks when this process has committed an event or a change of a run, when a queued run becomes due, and now
    and then for what other processes have done.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Say, from any thread, that there may be something to do."""
        self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Look until cancelled."""
        _listen(self.wake)
        while True:
            pause = _LOOK_AGAIN
            try:
                await asyncio.to_thread(create_asset_triggered_runs)
                await asyncio.to_thread(start_queued_runs)
                due = await asyncio.to_thread(_next_due)
                if due is not None:
                    pause = min(pause, (due - timezone.utcnow()).total_seconds() + 0.01)
            except Exception as error:
                log.warning("Could not look for new runs; trying again", error=repr(error))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, pause))
            self._wake.clear()


def _listen(wake: Any) -> None:
    """Have ``wake`` called after each commit that may lead to a new run, or make room for one."""

    def tell(_: Any, __: Any, changed: Any) -> None:
        if isinstance(changed, DagRun) and changed.state == DagRunState.RUNNING:
            return
        if (session := object_session(changed)) is not None:
            after_commit(session, wake)

    for model in (AssetEvent, AssetPartitionDagRun, DagRun):
        event.listen(model, "after_insert", tell)
    event.listen(DagRun, "after_update", tell)


def create_asset_triggered_runs() -> None:
    """Create the runs that events of assets ask for, as Airflow's scheduler does."""
    with transaction() as session:
        partitioned = scheduler()._create_dagruns_for_partitioned_asset_dags(session)
        due, by_assets = DagModel.dags_needing_dagruns(session)
        # Those are the first ten, with DAGs of a time schedule among them.
        due.close()
        if wanted := by_assets.keys() - partitioned:
            scheduler()._create_dag_runs_asset_triggered(
                dag_models=_runnable(sorted(wanted), session), session=session
            )


def _runnable(dag_ids: list[str], session: Session) -> list[DagModel]:
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


def _next_due() -> datetime | None:
    """Return when the next queued run may start that has a time before which it may not."""
    with reading() as session:
        return session.scalar(
            select(func.min(DagRun.run_after)).where(
                DagRun.state == DagRunState.QUEUED, DagRun.run_after > timezone.utcnow()
            )
        )
