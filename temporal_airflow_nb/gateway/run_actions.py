"""Cancels runs, clears tasks and marks their states, by the functions behind Airflow's REST API.

Each action is one transaction, in a thread of the gateway's pool. The transaction also writes to the outbox, so that
the run's workflow is notified if, and only if, the change is committed. A run that had ended is queued, and started
again after the commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

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
from temporal_airflow_nb.gateway.lookup import find_run, suggest_or_list
from temporal_airflow_nb.messages.requests import CancelRun, ClearTasks, MarkTasks
from temporal_airflow_nb.messages.runs import ActionResult
from temporal_airflow_nb.orchestration.outbox import managed_runs, outbox, rollout
from temporal_airflow_nb.orchestration.run_creation.launch import start_queued_runs
from temporal_airflow_nb.orchestration.scheduling import past_dependencies
from temporal_airflow_nb.orchestration.workflow.models import FINAL_RUN_STATES, Key
from temporal_airflow_nb.tasks.dags import dag_bag, dag_of_run
from temporal_airflow_nb.tasks.database import transaction

if TYPE_CHECKING:
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

_CONFLICT = 409
RUN_STATES = ("success", "failed")
TASK_STATES = (*RUN_STATES, "skipped")


@dataclass
class _Action:
    """The run of an action, its state afterwards, and the task instances that were changed."""

    dag_id: str
    run_id: str
    state: str = ""
    affected: list[Key] = field(default_factory=list)

    def result(self) -> ActionResult:
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "state": self.state,
            "affected": self.affected,
        }


def cancel(request: CancelRun) -> ActionResult:
    """End a run as "mark failed" does.

    Running tasks are killed, waiting tasks are skipped, and teardown tasks run.
    """
    with _acting(request.dag_id, request.run_id) as (dag_run, session, action):
        if dag_run.state not in FINAL_RUN_STATES:
            _mark_run(dag_run, "failed", session)
    return action.result()


def mark(request: MarkTasks) -> ActionResult:
    """
    Set the state of a run or of some of its tasks.

    Marking a task lets the tasks below it run that had failed because of it.

    Raises
    ------
    InvalidInputError
        There is no such state, or the tasks are in it already.
    """
    states = RUN_STATES if request.task_ids is None else TASK_STATES
    if request.state not in states:
        what = "A run" if request.task_ids is None else "A task"
        raise InvalidInputError(
            f"{what} can't be marked {request.state!r}.",
            hint=f"Choose one of: {', '.join(states)}.",
            state=request.state,
        )
    with _acting(request.dag_id, request.run_id) as (dag_run, session, action):
        if request.task_ids is None:
            _mark_run(dag_run, request.state, session)
        else:
            _mark_tasks(dag_run, request.task_ids, request, session)
    return action.result()


def clear(request: ClearTasks) -> ActionResult:
    """Clear a whole run, or some of its tasks, so that they run again; a running task is killed first."""
    with _acting(request.dag_id, request.run_id) as (dag_run, session, action):
        dag = _known(dag_of_run(dag_run, session), request.dag_id)
        chosen = (
            None
            if request.task_ids is None
            else _with_relatives(dag, dag_run, request.task_ids, request, session)
        )
        # In two steps, as in Airflow's REST API: with `dry_run`, `dag.clear` only selects the task instances.
        clear_task_instances(
            dag.clear(
                dry_run=True,
                task_ids=chosen,
                run_id=dag_run.run_id,
                only_failed=request.only_failed,
                session=session,
            ),
            session,
            DagRunState.QUEUED,
            run_on_latest_version=resolve_run_on_latest_version(
                request.latest_version, request.dag_id, session
            ),
        )
    return action.result()


@contextmanager
def _acting(dag_id: str, run_id: str | None) -> Iterator[tuple[DagRun, Session, _Action]]:
    """Yield a run in a transaction that also notifies its workflow; the latest run if ``run_id`` is None."""
    with transaction() as session:
        dag_run = find_run(dag_id, run_id, session)
        action = _Action(dag_id, dag_run.run_id)
        before = _instances(dag_run, session)
        yield dag_run, session, action
        # Airflow's sessions don't flush before a query: without this, the queries below would find the old states.
        session.flush()
        after = _instances(dag_run, session)
        action.affected = [key for key, instance in after.items() if before.get(key) != instance]
        action.state = str(session.scalars(select(DagRun._state).where(DagRun.id == dag_run.id)).one())
        if managed_runs.is_managed(dag_id, dag_run.run_id, session):
            outbox.notify(dag_id, dag_run.run_id, outbox.RESYNC, session)
        if (dag := dag_of_run(dag_run, session)) is not None:
            past_dependencies.resync_later_runs(dag_run, dag, session)
        if action.state == DagRunState.QUEUED and rollout.active_rollout() is None:
            # No setting says which DAGs Temporal executes: it executes a run that a user acts on through a stack.
            managed_runs.assign(dag_id, dag_run.run_id, session)
    # After the commit: other transactions must see the queued run.
    if action.state == DagRunState.QUEUED:
        start_queued_runs()


def _instances(dag_run: DagRun, session: Session) -> dict[Key, Any]:
    """Return the id and the state of each task instance."""
    # The id too: Airflow gives a task instance another id when it is cleared, while its state may be the same again.
    rows = session.execute(
        select(TI.task_id, TI.map_index, TI.id, TI.state).where(
            TI.dag_id == dag_run.dag_id, TI.run_id == dag_run.run_id
        )
    )
    return {(row.task_id, row.map_index): (row.id, row.state) for row in rows}


def _mark_run(dag_run: DagRun, state: str, session: Session) -> None:
    dag = _known(dag_of_run(dag_run, session), dag_run.dag_id)
    patch_dag_run_state(dag=dag, dag_run=dag_run, state=DagRunMutableStates(state), session=session)


def _mark_tasks(dag_run: DagRun, task_ids: Sequence[str], request: MarkTasks, session: Session) -> None:
    # The latest version of the DAG, as in Airflow's REST API.
    dag = _known(dag_bag().get_latest_version_of_dag(dag_run.dag_id, session=session), dag_run.dag_id)
    _check(dag, dag_run, task_ids, request.map_indexes, session)
    altered = False
    for task_id in task_ids:
        for map_index in request.map_indexes or (None,):
            body = BulkTaskInstanceBody(
                task_id=task_id,
                map_index=map_index,
                new_state=TaskInstanceState(request.state),
                include_upstream=request.upstream,
                include_downstream=request.downstream,
            )
            try:
                # Private, but what the REST API calls: it also clears the tasks below that had failed because of this.
                _patch_task_instance_state(
                    task_id, dag_run.run_id, dag, body, {"new_state": body.new_state}, session
                )
                altered = True
            except HTTPException as error:
                # Airflow answers 409 if the task is in this state already; others may still be changed.
                if error.status_code != _CONFLICT:
                    raise
    if not altered:
        raise InvalidInputError(
            f"{', '.join(task_ids)} of {dag_run.dag_id} {dag_run.run_id} is marked {request.state!r} already.",
            hint="Nothing was changed.",
            state=request.state,
        )


def _with_relatives(
    dag: SerializedDAG, dag_run: DagRun, task_ids: Sequence[str], request: ClearTasks, session: Session
) -> list[str | tuple[str, int]]:
    """Return the tasks and mapped instances to clear: those of the request and their relatives."""
    _check(dag, dag_run, task_ids, request.map_indexes, session)
    indexes = request.map_indexes
    mapped = {(task_id, index) for task_id in task_ids for index in indexes or ()}
    whole = set() if indexes is not None else set(task_ids)
    directions: tuple[tuple[Literal["upstream", "downstream"], bool], ...] = (
        ("upstream", request.upstream),
        ("downstream", request.downstream),
    )
    for direction, wanted in directions:
        if wanted:
            found = find_relevant_relatives(
                whole,
                mapped,
                dag=dag,
                run_id=dag_run.run_id,
                direction=direction,
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


def _check(
    dag: SerializedDAG,
    dag_run: DagRun,
    task_ids: Sequence[str],
    map_indexes: Sequence[int] | None,
    session: Session,
) -> None:
    """Refuse tasks and map indexes that the run doesn't have."""
    for task_id in task_ids:
        if not dag.has_task(task_id):
            raise RunNotFoundError(
                f"DAG {dag_run.dag_id!r} has no task {task_id!r}.",
                hint=suggest_or_list(task_id, dag.task_ids),
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
        if missing := set(map_indexes or ()) - known:
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
