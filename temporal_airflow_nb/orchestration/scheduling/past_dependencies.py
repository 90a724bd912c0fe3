"""Notify later runs whose tasks wait for tasks of this run.

They do so if they have ``depends_on_past`` or ``wait_for_downstream``.

A pass calls it in its own transaction; the messages to the other runs go through the outbox.
"""

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

# The states that Airflow's `PrevDagrunDep` accepts of a task in the previous run.
SATISFYING_STATES = (TaskInstanceState.SUCCESS, TaskInstanceState.SKIPPED)


def wake_later_runs(dag_run: DagRun, dag: SerializedDAG, ended: Collection[str], session: Session) -> None:
    """Wake later runs for the tasks that may start now that the tasks ``ended`` have succeeded."""
    next_run_dependents = get_graph(dag).next_run_dependents
    tasks = {task_id for task_id in ended if task_id in next_run_dependents}
    if not tasks:
        return
    # A mapped task meets the dependency once all its instances have succeeded or are skipped.
    tasks -= set(
        session.scalars(
            select(TI.task_id)
            .where(TI.dag_id == dag_run.dag_id, TI.run_id == dag_run.run_id, TI.task_id.in_(sorted(tasks)))
            .where(or_(TI.state.is_(None), TI.state.not_in(SATISFYING_STATES)))
            .distinct()
        )
    )
    dependents = sorted(set().union(*(next_run_dependents[task_id] for task_id in tasks)))
    for dag_id, run_id in _list_later_runs(dag_run, dag, session) if dependents else ():
        for task_id in dependents:
            outbox.notify(dag_id, run_id, outbox.WAKE, session, task_id)


def resync_later_runs(dag_run: DagRun, dag: SerializedDAG, session: Session) -> None:
    """Make later runs evaluate all their tasks, after a user has changed tasks of this run."""
    if get_graph(dag).next_run_dependents:
        for dag_id, run_id in _list_later_runs(dag_run, dag, session):
            outbox.notify(dag_id, run_id, outbox.RESYNC, session)


def _list_later_runs(dag_run: DagRun, dag: SerializedDAG, session: Session) -> list[tuple[str, str]]:
    """Return the unfinished runs whose previous run this one is, by Airflow's rules."""
    if dag_run.logical_date is None:
        return []
    later = and_(DagRun.dag_id == dag_run.dag_id, DagRun.logical_date > dag_run.logical_date)
    next_date = select(func.min(DagRun.logical_date)).where(later)
    if dag.catchup:
        # With catchup, `PrevDagrunDep` takes the last earlier run that isn't manual as the previous one: a manual run
        # in between doesn't separate this run from the next one.
        next_date = next_date.where(DagRun.run_type != DagRunType.MANUAL)
    last = session.scalar(next_date)
    found = select(DagRun.dag_id, DagRun.run_id).where(later, DagRun.state.in_(State.unfinished_dr_states))
    if last is not None:
        found = found.where(DagRun.logical_date <= last)
    return [(row.dag_id, row.run_id) for row in session.execute(found)]
