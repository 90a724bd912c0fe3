"""What a user does to a run: cancel, clear, mark. Each is what Airflow's REST API does, in one transaction.

The run's workflow is told to look again; a run that had ended is queued, and executed anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.common.dagbag import resolve_run_on_latest_version
from airflow.api_fastapi.core_api.datamodels.dag_run import DagRunMutableStates
from airflow.api_fastapi.core_api.datamodels.task_instances import BulkTaskInstanceBody
from airflow.api_fastapi.core_api.services.public.dag_run import patch_dag_run_state
from airflow.api_fastapi.core_api.services.public.task_instances import _patch_task_instance_state
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance as TI
from airflow.models.taskinstance import clear_task_instances, find_relevant_relatives
from airflow.utils.state import DagRunState, TaskInstanceState
from fastapi import HTTPException
from sqlalchemy import select

from temporal_airflow_nb.errors import DagNotFoundError, InvalidInputError, RunNotFoundError
from temporal_airflow_nb.gateway.lookup import find_run, meant_or_there
from temporal_airflow_nb.orchestration.outbox import managed_runs, outbox, rollout
from temporal_airflow_nb.orchestration.run_creation.launch import start_queued_runs
from temporal_airflow_nb.orchestration.scheduling import past_dependencies
from temporal_airflow_nb.orchestration.workflow.models import FINAL_RUN_STATES, Key
from temporal_airflow_nb.tasks.dags import dag_bag, dag_of_run
from temporal_airflow_nb.tasks.database import transaction

if TYPE_CHECKING:
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

RUN_STATES = ("success", "failed")
TASK_STATES = (*RUN_STATES, "skipped")


@dataclass
class ActionResult:
    """What an action has done: to which run, which is in which state now, and to which task instances."""

    dag_id: str
    run_id: str
    state: str = ""
    affected: list[Key] = field(default_factory=list)


@dataclass(frozen=True)
class Tasks:
    """Tasks of a run, chosen by a user; ``map_indexes`` of one mapped task."""

    task_ids: Sequence[str]
    map_indexes: Sequence[int] | None = None
    upstream: bool = False
    downstream: bool = False


def cancel(dag_id: str, run_id: str | None) -> ActionResult:
    """End a run as "mark failed" does: running tasks are killed, waiting ones skipped, teardowns run."""
    with _acting(dag_id, run_id) as (dag_run, session, done):
        if dag_run.state not in FINAL_RUN_STATES:
            _mark_run(dag_run, "failed", session)
    return done


def mark(dag_id: str, run_id: str | None, state: str, tasks: Tasks | None) -> ActionResult:
    """
    Set the state of a run or of some of its tasks, whatever they do now.

    Marking a task lets those below it run that had failed because of it.

    Raises
    ------
    InvalidInputError
        There is no such state, or the tasks are in it already.
    """
    states = RUN_STATES if tasks is None else TASK_STATES
    if state not in states:
        what = "A run" if tasks is None else "A task"
        raise InvalidInputError(
            f"{what} can't be marked {state!r}.", hint=f"Choose one of: {', '.join(states)}.", state=state
        )
    with _acting(dag_id, run_id) as (dag_run, session, done):
        if tasks is None:
            _mark_run(dag_run, state, session)
        else:
            _mark_tasks(dag_run, state, tasks, session)
    return done


def clear(
    dag_id: str,
    run_id: str | None,
    tasks: Tasks | None,
    *,
    only_failed: bool = False,
    latest_version: bool | None = None,
) -> ActionResult:
    """
    Forget what came of a run or of some of its tasks, so that they run again; a running one is killed first.

    ``latest_version`` has the run use the DAG as it is now; where None, the DAG and Airflow's configuration decide.
    """
    with _acting(dag_id, run_id) as (dag_run, session, done):
        dag = _known(dag_of_run(dag_run, session), dag_id)
        chosen = None if tasks is None else _with_relatives(dag, dag_run, tasks, session)
        clear_task_instances(
            dag.clear(
                dry_run=True,
                task_ids=chosen,
                run_id=dag_run.run_id,
                only_failed=only_failed,
                session=session,
            ),
            session,
            DagRunState.QUEUED,
            run_on_latest_version=resolve_run_on_latest_version(latest_version, dag_id, session),
        )
    return done


@contextmanager
def _acting(dag_id: str, run_id: str | None) -> Iterator[tuple[DagRun, Session, ActionResult]]:
    """Find a run, the latest where none is named, and tell Temporal of what is done to it."""
    with transaction() as session:
        dag_run = find_run(dag_id, run_id, session)
        done = ActionResult(dag_id, dag_run.run_id)
        before = _instances(dag_run, session)
        yield dag_run, session, done
        session.flush()
        after = _instances(dag_run, session)
        done.affected = [key for key, instance in after.items() if before.get(key) != instance]
        done.state = str(session.scalars(select(DagRun._state).where(DagRun.id == dag_run.id)).one())
        if managed_runs.is_managed(dag_id, dag_run.run_id, session):
            outbox.notify(dag_id, dag_run.run_id, outbox.RESYNC, session)
        if (dag := dag_of_run(dag_run, session)) is not None:
            past_dependencies.resync_later_runs(dag_run, dag, session)
        if done.state == DagRunState.QUEUED and rollout.active_rollout() is None:
            # No setting says whose it is: it stays with those who act on it.
            managed_runs.assign(dag_id, dag_run.run_id, session)
    if done.state == DagRunState.QUEUED:
        start_queued_runs()


def _instances(dag_run: DagRun, session: Session) -> dict[Key, Any]:
    """Return each task instance's id, which another try has another of, and its state."""
    rows = session.execute(
        select(TI.task_id, TI.map_index, TI.id, TI.state).where(
            TI.dag_id == dag_run.dag_id, TI.run_id == dag_run.run_id
        )
    )
    return {(row.task_id, row.map_index): (row.id, row.state) for row in rows}


def _mark_run(dag_run: DagRun, state: str, session: Session) -> None:
    dag = _known(dag_of_run(dag_run, session), dag_run.dag_id)
    patch_dag_run_state(dag=dag, dag_run=dag_run, state=DagRunMutableStates(state), session=session)


def _mark_tasks(dag_run: DagRun, state: str, tasks: Tasks, session: Session) -> None:
    dag = _known(dag_bag().get_latest_version_of_dag(dag_run.dag_id, session=session), dag_run.dag_id)
    _check(dag, dag_run, tasks, session)
    altered = False
    for task_id in tasks.task_ids:
        for map_index in tasks.map_indexes or (None,):
            body = BulkTaskInstanceBody(
                task_id=task_id,
                map_index=map_index,
                new_state=TaskInstanceState(state),
                include_upstream=tasks.upstream,
                include_downstream=tasks.downstream,
            )
            try:
                _patch_task_instance_state(
                    task_id, dag_run.run_id, dag, body, {"new_state": body.new_state}, session
                )
                altered = True
            except HTTPException as error:
                if error.status_code != 409:
                    raise
    if not altered:
        raise InvalidInputError(
            f"{', '.join(tasks.task_ids)} of {dag_run.dag_id} {dag_run.run_id}: marked {state!r} already.",
            hint="Nothing was changed.",
            state=state,
        )


def _with_relatives(dag: SerializedDAG, dag_run: DagRun, tasks: Tasks, session: Session) -> list[Any]:
    """Return the tasks, and mapped instances, to clear with those that a user has named."""
    _check(dag, dag_run, tasks, session)
    indexes = tasks.map_indexes
    mapped = {(task_id, index) for task_id in tasks.task_ids for index in indexes or ()}
    whole = set() if indexes is not None else set(tasks.task_ids)
    for direction, wanted in (("upstream", tasks.upstream), ("downstream", tasks.downstream)):
        if wanted:
            found = find_relevant_relatives(
                whole,
                mapped,
                dag=dag,
                run_id=dag_run.run_id,
                direction=direction,  # type: ignore[arg-type]
                session=session,
            )
            whole |= {task for task in found if isinstance(task, str)}
            mapped |= {task for task in found if not isinstance(task, str)}
    return [*whole, *mapped]


def _known(dag: SerializedDAG | None, dag_id: str) -> SerializedDAG:
    if dag is None:
        raise DagNotFoundError(
            f"DAG {dag_id!r} isn't in the database any more.", hint="Run its file again.", dag_id=dag_id
        )
    return dag


def _check(dag: SerializedDAG, dag_run: DagRun, tasks: Tasks, session: Session) -> None:
    """Refuse tasks and map indexes that the run doesn't have."""
    for task_id in tasks.task_ids:
        if not dag.has_task(task_id):
            raise RunNotFoundError(
                f"DAG {dag_run.dag_id!r} has no task {task_id!r}.",
                hint=meant_or_there(task_id, dag.task_ids),
                dag_id=dag_run.dag_id,
                task_id=task_id,
            )
        known = set(
            session.scalars(
                select(TI.map_index).where(
                    TI.dag_id == dag_run.dag_id, TI.run_id == dag_run.run_id, TI.task_id == task_id
                )
            )
        )
        if missing := set(tasks.map_indexes or ()) - known:
            hint = (
                f"It has {min(known)} to {max(known)}." if known and max(known) >= 0 else "It isn't mapped."
            )
            raise RunNotFoundError(
                f"Task {task_id!r} of run {dag_run.run_id!r} has no map_index {min(missing)}.",
                hint=hint,
                dag_id=dag_run.dag_id,
                run_id=dag_run.run_id,
                task_id=task_id,
            )
