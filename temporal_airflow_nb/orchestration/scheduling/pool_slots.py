"""Slots: what pools and limits allow to run, over all runs. Airflow's own critical section hands them out."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog
from airflow._shared.timezones import timezone
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.pool import Pool
from airflow.models.taskinstance import TaskInstance as TI
from airflow.ti_deps.dependencies_states import EXECUTION_STATES
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import and_, exists, func, select, update

from temporal_airflow_nb.orchestration.outbox import outbox, rollout
from temporal_airflow_nb.orchestration.outbox.locks import DatabaseLock, acquire
from temporal_airflow_nb.orchestration.outbox.query_restriction import (
    restrict_queries,
    run_is_managed,
    run_is_unmanaged,
)
from temporal_airflow_nb.orchestration.scheduling.airflow_scheduler import scheduler
from temporal_airflow_nb.tasks.database import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = structlog.get_logger(__name__)

_AT_ONCE = 256
_LOOK_AGAIN = 1.0


def queue_tasks(dag_run: DagRun, session: Session, *, has_freed_slots: bool) -> None:
    """
    Move a run's SCHEDULED task instances to QUEUED, as far as pools and limits allow.

    Where others compete for slots, Airflow's critical section decides between all of them. The other runs that got
    one are told.

    Parameters
    ----------
    has_freed_slots
        Whether a task of the run has ended, so that others may start even if the run itself needs no slot.
    """
    of_run = and_(TI.dag_id == dag_run.dag_id, TI.run_id == dag_run.run_id)
    scheduled = session.execute(
        select(TI.id, TI.pool, TI.pool_slots)
        .where(of_run, TI.state == TaskInstanceState.SCHEDULED)
        .limit(_AT_ONCE)
    ).all()
    if scheduled:
        acquire(session, DatabaseLock.ASSIGN_SLOTS)
    others_wait = bool(session.scalar(select(exists().where(_waits(), ~of_run))))
    if scheduled and len(scheduled) < _AT_ONCE and not others_wait and _has_room(dag_run, scheduled, session):
        session.execute(
            update(TI)
            .where(TI.id.in_([row.id for row in scheduled]))
            .values(state=TaskInstanceState.QUEUED, queued_dttm=timezone.utcnow(), queued_by_job_id=None)
            .execution_options(synchronize_session=False)
        )
    elif scheduled or (others_wait and has_freed_slots):
        acquire(session, DatabaseLock.ASSIGN_SLOTS)
        _assign_slots(session, besides=dag_run)


def assign_free_slots() -> None:
    """Give free slots to those that wait for one, if any do, and tell their runs."""
    with reading() as session:
        if not session.scalar(select(exists().where(_waits()))):
            return
    with transaction() as session:
        acquire(session, DatabaseLock.ASSIGN_SLOTS)
        _assign_slots(session)


def _assign_slots(session: Session, besides: DagRun | None = None) -> None:
    free = _free_slots(session)
    none_free = [pool for pool, slots in free.items() if slots <= 0]
    most = min(_AT_ONCE, sum(slots for slots in free.values() if slots > 0))
    with restrict_queries(
        TI.__tablename__, lambda entity: and_(run_is_managed(entity), entity.pool.not_in(none_free))
    ):
        queued = (
            scheduler()._executable_task_instances_to_queued(max_tis=most, session=session) if most else []
        )
    told = set() if besides is None else {(besides.dag_id, besides.run_id)}
    for dag_id, run_id in sorted({(ti.dag_id, ti.run_id) for ti in queued} - told):
        outbox.notify(dag_id, run_id, outbox.WAKE, session)


def _waits() -> Any:
    return and_(
        TI.state == TaskInstanceState.SCHEDULED,
        DagRun.dag_id == TI.dag_id,
        DagRun.run_id == TI.run_id,
        DagRun.state == DagRunState.RUNNING,
        run_is_managed(TI),
    )


def _has_room(dag_run: DagRun, scheduled: Sequence[Any], session: Session) -> bool:
    """Return whether nobody competes for the slots these need, so that Airflow's full search can be left out."""
    model = session.get(DagModel, dag_run.dag_id)
    if model is None or model.is_paused or model.has_task_concurrency_limits or scheduler()._multi_team:
        return False
    active = session.scalar(
        select(func.count())
        .select_from(TI)
        .where(TI.dag_id == dag_run.dag_id, TI.run_id == dag_run.run_id, TI.state.in_(EXECUTION_STATES))
    )
    if (active or 0) + len(scheduled) > model.max_active_tasks:
        return False
    wanted: dict[str, int] = defaultdict(int)
    for row in scheduled:
        wanted[row.pool] += row.pool_slots
    free = _free_slots(session)
    return all(pool in free and free[pool] >= slots for pool, slots in wanted.items())


def _free_slots(session: Session) -> dict[str, float]:
    """
    Return how many slots of each pool our runs may take now.

    Where tasks of other runs wait for the same pool, whose scheduler comes round once in a while, at least half of what
    is open is left to them: otherwise each slot would be taken again the moment it is given back.
    """
    free: dict[str, float] = {
        name: stats["open"] for name, stats in Pool.slots_stats(lock_rows=True, session=session).items()
    }
    if rollout.runs_without_airflow_scheduler():
        return free
    waiting = session.execute(
        select(TI.pool, func.sum(TI.pool_slots))
        .where(
            TI.state == TaskInstanceState.SCHEDULED,
            DagRun.dag_id == TI.dag_id,
            DagRun.run_id == TI.run_id,
            DagRun.state == DagRunState.RUNNING,
            DagModel.dag_id == TI.dag_id,
            DagModel.is_paused.is_(False),
            run_is_unmanaged(TI),
        )
        .group_by(TI.pool)
    )
    for pool, slots in waiting:
        if 0 < free.get(pool, 0) < float("inf"):
            free[pool] -= min(slots, -(-free[pool] // 2))
    return free


class SlotWatcher:
    """
    Looks for slots that became free without a task of ours ending.

    Somebody made a pool larger, raised a limit or unpaused a DAG; a run was ended from outside; a task of a run that
    isn't ours has ended. It costs one indexed query now and then, however many runs wait, and Airflow's critical
    section only while something waits.
    """

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await asyncio.to_thread(assign_free_slots)
            except Exception as error:
                log.warning("Could not hand out slots; trying again", error=repr(error))
            await asyncio.sleep(_LOOK_AGAIN)
