"""The runs that an earlier one is the past of, for ``depends_on_past`` and ``wait_for_downstream``."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance as TI
from airflow.utils.state import State, TaskInstanceState
from airflow.utils.types import DagRunType
from sqlalchemy import and_, func, or_, select

from temporal_airflow_nb.orchestration.outbox import outbox
from temporal_airflow_nb.orchestration.scheduling.task_graph import get_graph

if TYPE_CHECKING:
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

SATISFYING_STATES = (TaskInstanceState.SUCCESS, TaskInstanceState.SKIPPED)


def wake_later_runs(dag_run: DagRun, dag: SerializedDAG, ended: Collection[str], session: Session) -> None:
    """Tell later runs which of their tasks may start now that instances of the tasks ``ended`` have ended well."""
    remembered = get_graph(dag).remembered
    tasks = {task_id for task_id in ended if task_id in remembered}
    if not tasks:
        return
    tasks -= set(
        session.scalars(
            select(TI.task_id)
            .where(TI.dag_id == dag_run.dag_id, TI.run_id == dag_run.run_id, TI.task_id.in_(sorted(tasks)))
            .where(or_(TI.state.is_(None), TI.state.not_in(SATISFYING_STATES)))
            .distinct()
        )
    )
    look = sorted(set().union(*(remembered[task_id] for task_id in tasks)))
    for dag_id, run_id in _later(dag_run, dag, session) if look else ():
        for task_id in look:
            outbox.notify(dag_id, run_id, outbox.WAKE, session, task_id)


def resync_later_runs(dag_run: DagRun, dag: SerializedDAG, session: Session) -> None:
    """Have later runs look at everything, where any task looks back: somebody has changed this run's tasks."""
    if get_graph(dag).remembered:
        for dag_id, run_id in _later(dag_run, dag, session):
            outbox.notify(dag_id, run_id, outbox.RESYNC, session)


def _later(dag_run: DagRun, dag: SerializedDAG, session: Session) -> list[tuple[str, str]]:
    """Return the unfinished runs that Airflow takes this one for the previous of."""
    if dag_run.logical_date is None:
        return []
    later = and_(DagRun.dag_id == dag_run.dag_id, DagRun.logical_date > dag_run.logical_date)
    following = select(func.min(DagRun.logical_date)).where(later)
    if dag.catchup:
        # For such a DAG only scheduled runs are anybody's past.
        following = following.where(DagRun.run_type != DagRunType.MANUAL)
    last = session.scalar(following)
    found = select(DagRun.dag_id, DagRun.run_id).where(later, DagRun.state.in_(State.unfinished_dr_states))
    if last is not None:
        found = found.where(DagRun.logical_date <= last)
    return [(row.dag_id, row.run_id) for row in session.execute(found)]
