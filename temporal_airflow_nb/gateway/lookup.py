"""Finds DAGs, runs and tries in Airflow's database; errors list what exists instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance as TI
from airflow.models.taskinstancehistory import TaskInstanceHistory as TIH
from airflow.utils.state import State, TaskInstanceState
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from temporal_airflow_nb.errors import DagNotFoundError, RunNotFoundError
from temporal_airflow_nb.suggestions import did_you_mean
from temporal_airflow_nb.tasks.dags import dag_of_run

_SHOWN = 5


def check_dag(dag_id: str, session: Session) -> None:
    """Raise if Airflow doesn't know a DAG."""
    if session.get(DagModel, dag_id) is None:
        known = session.scalars(select(DagModel.dag_id)).all()
        raise DagNotFoundError(
            f"There is no DAG {dag_id!r}.", hint=suggest_or_list(dag_id, known), dag_id=dag_id
        )


def find_run(dag_id: str, run_id: str | None, session: Session) -> DagRun:
    """Return a run of a DAG; the latest if ``run_id`` is None."""
    check_dag(dag_id, session)
    runs = select(DagRun).where(DagRun.dag_id == dag_id).order_by(DagRun.id.desc())
    found = session.scalar(runs.limit(1) if run_id is None else runs.where(DagRun.run_id == run_id))
    if found is not None:
        return found
    if run_id is None:
        raise RunNotFoundError(f"DAG {dag_id!r} has no run.", hint="Run it first.", dag_id=dag_id)
    known = [run.run_id for run in session.scalars(runs.limit(_SHOWN))]
    raise RunNotFoundError(
        f"DAG {dag_id!r} has no run {run_id!r}.",
        hint=f"Its latest are: {', '.join(known)}." if known else "It has none.",
        dag_id=dag_id,
        run_id=run_id,
    )


@dataclass(frozen=True)
class Try:
    """One try of a task instance.

    Attributes
    ----------
    ti : TaskInstance
        The task instance; its ``task`` is set if the DAG still has it.
    row : TaskInstance or TaskInstanceHistory
        Where the try is recorded.
    former : list of TaskInstanceHistory
        The tries that are over, oldest first; among them the latest, while the task waits for its next try.
    number : int
    """

    ti: TI
    row: Any
    former: list[TIH]
    number: int

    @property
    def is_over(self) -> bool:
        """Whether the try has ended."""
        if self.row is not self.ti or any(row.try_number == self.number for row in self.former):
            return True
        return self.ti.state in State.finished or self.ti.state == TaskInstanceState.UP_FOR_RETRY


def find_try(dag_run: DagRun, task_id: str, map_index: int, try_number: int | None, session: Session) -> Try:
    """Return a try of a task instance; the latest if ``try_number`` is None or 0."""
    where = {"dag_id": dag_run.dag_id, "run_id": dag_run.run_id, "task_id": task_id}
    options = joinedload(TI.dag_run), joinedload(TI.rendered_task_instance_fields)
    ti = session.scalar(select(TI).filter_by(**where, map_index=map_index).options(*options))
    if ti is None:
        raise _no_task(dag_run, task_id, map_index, session)
    history = select(TIH).filter_by(**where, map_index=map_index).where(TIH.try_number > 0)
    former = list(session.scalars(history.options(joinedload(TIH.dag_run)).order_by(TIH.try_number)))
    number = try_number or ti.try_number
    row: Any = ti
    if number != ti.try_number:
        row = next((row for row in former if row.try_number == number), None)
        if row is None:
            raise RunNotFoundError(
                f"Task {task_id!r} has no try {number}.",
                hint=f"Its latest try is {ti.try_number}.",
                task_id=task_id,
            )
    dag = dag_of_run(dag_run, session)
    # The database doesn't fill in `task`; some of Airflow's methods, such as `next_retry_datetime`, need it.
    if dag is not None and task_id in dag.task_dict:
        ti.task = row.task = dag.task_dict[task_id]
    return Try(ti, row, former, number)


def _no_task(dag_run: DagRun, task_id: str, map_index: int, session: Session) -> RunNotFoundError:
    of_run = select(TI.task_id, TI.map_index).filter_by(dag_id=dag_run.dag_id, run_id=dag_run.run_id)
    instances = session.execute(of_run).tuples().all()
    indexes = [index for known, index in instances if known == task_id]
    what = f"Run {dag_run.run_id!r} has no task {task_id!r}"
    if not indexes:
        hint = suggest_or_list(task_id, {known for known, _ in instances})
    elif max(indexes) < 0:
        what, hint = f"{what} with map_index {map_index}", "It isn't mapped: omit the map_index."
    else:
        what = f"{what} with map_index {map_index}"
        hint = f"It is mapped: choose a map_index of {min(indexes)} to {max(indexes)}."
    return RunNotFoundError(f"{what}.", hint=hint, task_id=task_id)


def suggest_or_list(name: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests names similar to ``name``, or lists the known names."""
    known = sorted(known)
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    listed = f"There are: {', '.join(known[:_SHOWN])}{more}." if known else "There are none."
    return did_you_mean(name, known, listed)
