"""Assign free slots of pools to waiting tasks of all runs, with Airflow's critical section.

It runs in threads of the worker, in a pass's transaction or in one of its own. A transaction that moves a task from
SCHEDULED to QUEUED holds the lock ``ASSIGN_SLOTS`` until its commit: otherwise two transactions could both count the
same slot as free. Airflow's schedulers take the same lock for their own tasks.
"""

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
from sqlalchemy.exc import SQLAlchemyError

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
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

log = structlog.get_logger(__name__)

_MAX_TASKS_AT_ONCE = 256
_CHECK_SECONDS = 1.0


def queue_tasks(dag_run: DagRun, session: Session, *, has_freed_slots: bool) -> None:
    """
    Move a run's SCHEDULED task instances to QUEUED, as far as pools and limits allow.

    If other runs compete for slots, Airflow's critical section decides between all of them, and the other runs that got
    slots are notified through the outbox.

    Parameters
    ----------
    has_freed_slots
        Whether a task of the run has ended, so that others may start even if this run needs no slot.
    """
    of_run = and_(TI.dag_id == dag_run.dag_id, TI.run_id == dag_run.run_id)
    scheduled = session.execute(
        select(TI.id, TI.pool, TI.pool_slots)
        .where(of_run, TI.state == TaskInstanceState.SCHEDULED)
        .limit(_MAX_TASKS_AT_ONCE)
    ).all()
    # Before free slots are counted, so that the count still holds at the commit.
    if scheduled:
        acquire(session, DatabaseLock.ASSIGN_SLOTS)
    others_wait = bool(session.scalar(select(exists().where(_waits_for_slot(), ~of_run))))
    if (
        scheduled
        and len(scheduled) < _MAX_TASKS_AT_ONCE
        and not others_wait
        and _has_free_slots_for(dag_run, scheduled, session)
    ):
        # The outcome of Airflow's critical section, without its search. Like that, it leaves `queued_by_job_id` NULL:
        # see `DecidingScheduler`.
        session.execute(
            update(TI)
            .where(TI.id.in_([row.id for row in scheduled]))
            .values(state=TaskInstanceState.QUEUED, queued_dttm=timezone.utcnow(), queued_by_job_id=None)
            .execution_options(synchronize_session=False)
        )
    elif scheduled or (others_wait and has_freed_slots):
        # Again, for a run that needs no slot itself. A lock that the transaction has is granted at once.
        acquire(session, DatabaseLock.ASSIGN_SLOTS)
        _assign_slots(session, besides=dag_run)


def assign_free_slots() -> None:
    """Assign free slots to the tasks that wait for one, and notify their runs."""
    # A read first: SlotWatcher calls this every second, and a transaction would take SQLite's write lock each time.
    with reading() as session:
        if not session.scalar(select(exists().where(_waits_for_slot()))):
            return
    with transaction() as session:
        acquire(session, DatabaseLock.ASSIGN_SLOTS)
        _assign_slots(session)


def _assign_slots(session: Session, besides: DagRun | None = None) -> None:
    free = _count_free_slots(session)
    full_pools = [pool for pool, slots in free.items() if slots <= 0]
    max_tasks = min(_MAX_TASKS_AT_ONCE, sum(slots for slots in free.values() if slots > 0))
    # The search of Airflow's critical section sees only tasks of managed runs, and only pools in which this worker may
    # take slots. It counts running tasks with other queries, which the restriction leaves unchanged. It skips rows that
    # other transactions have locked, and so never waits for the pass of another run.
    with restrict_queries(
        TI.__tablename__, lambda entity: and_(run_is_managed(entity), entity.pool.not_in(full_pools))
    ):
        queued = (
            scheduler()._executable_task_instances_to_queued(max_tis=max_tasks, session=session)
            if max_tasks
            else []
        )
    # A run that is in its own pass reads the new states itself.
    own = set() if besides is None else {(besides.dag_id, besides.run_id)}
    for dag_id, run_id in sorted({(ti.dag_id, ti.run_id) for ti in queued} - own):
        outbox.notify(dag_id, run_id, outbox.WAKE, session)


def _waits_for_slot() -> ColumnElement[bool]:
    return and_(
        TI.state == TaskInstanceState.SCHEDULED,
        DagRun.dag_id == TI.dag_id,
        DagRun.run_id == TI.run_id,
        DagRun.state == DagRunState.RUNNING,
        run_is_managed(TI),
    )


def _has_free_slots_for(dag_run: DagRun, scheduled: Sequence[Any], session: Session) -> bool:
    """Return whether all of ``scheduled`` fit into pools and limits, without Airflow's search."""
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
    needed: dict[str, int] = defaultdict(int)
    for row in scheduled:
        needed[row.pool] += row.pool_slots
    free = _count_free_slots(session)
    return all(pool in free and free[pool] >= slots for pool, slots in needed.items())


def _count_free_slots(session: Session) -> dict[str, float]:
    """
    Return how many slots of each pool managed runs may take now.

    If tasks of unmanaged runs wait for the same pool, at least half of its open slots are left to them. Their scheduler
    assigns slots only once per loop: otherwise the worker would take each slot again the moment it becomes free.
    """
    # `lock_rows` locks the rows of all pools with NOWAIT, as Airflow's critical section does. If a user is changing a
    # pool, it raises OperationalError at once, and the caller tries the whole transaction again.
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
    The loop that assigns slots that became free without the end of a managed task.

    A user made a pool larger, raised a limit, unpaused a DAG or ended a run; or a task of an unmanaged run has ended.
    It costs one indexed query per second, however many runs wait, and Airflow's critical section only while tasks wait.
    """

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await asyncio.to_thread(assign_free_slots)
            except Exception as error:
                # Nothing restarts this loop. SQLAlchemyError includes the refusal of a lock on a pool, which is normal.
                log.warning(
                    "Could not assign slots; trying again",
                    error=repr(error),
                    exc_info=not isinstance(error, SQLAlchemyError),
                )
            await asyncio.sleep(_CHECK_SECONDS)
