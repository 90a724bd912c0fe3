"""Activities that keep the workflow and Airflow's database in step. Each is one short transaction."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import structlog
from airflow.api.common.mark_tasks import set_dag_run_state_to_failed
from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import DagRunState, State
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, OperationalError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from temporal_airflow_nb.config.environment import native_scheduling, on_worker_lost
from temporal_airflow_nb.orchestration.outbox import managed_runs, rollout, workflow_records
from temporal_airflow_nb.orchestration.run_creation.launch import start_queued_runs
from temporal_airflow_nb.orchestration.schedules.due_runs import create_due_runs
from temporal_airflow_nb.orchestration.scheduling import airflow_queues
from temporal_airflow_nb.orchestration.scheduling.airflow_scheduler import scheduler
from temporal_airflow_nb.orchestration.scheduling.grid_rows import (
    pack_changed_rows,
    pack_former_tries,
    pack_structure,
    run_facts,
    run_times,
)
from temporal_airflow_nb.orchestration.scheduling.pool_slots import assign_free_slots
from temporal_airflow_nb.orchestration.scheduling.scheduling_pass import SchedulingPass
from temporal_airflow_nb.orchestration.workflow.models import (
    DATABASE_UNAVAILABLE,
    RUN_GONE,
    LoadedDag,
    PassInput,
    PassResult,
    RunFinished,
    RunRef,
    RunStatus,
    TaskFailures,
    check_size,
)
from temporal_airflow_nb.tasks.callbacks import record_ended_process, record_end_if_cleared
from temporal_airflow_nb.tasks.dags import dag_of_run
from temporal_airflow_nb.tasks.database import transaction

log = structlog.get_logger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


def translate_database_errors(function: F) -> F:
    """DatabaseLock what the database driver raises into errors whose type the workflow can react to."""

    @wraps(function)
    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except (OperationalError, ConnectionError) as error:
            raise ApplicationError(
                _first_line(error), type=DATABASE_UNAVAILABLE, non_retryable=True
            ) from None
        except DBAPIError as error:
            # The statement's parameters may hold what a user entered.
            raise ApplicationError(f"{type(error).__name__}: {_first_line(error)}") from None

    return call  # type: ignore[return-value]


def _first_line(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0][:500]


def _locked_run(ref: Any, session: Any) -> tuple[DagRun, Any]:
    dag_run = session.scalar(
        select(DagRun)
        .where(DagRun.dag_id == ref.dag_id, DagRun.run_id == ref.run_id)
        .with_for_update(of=DagRun)
    )
    if dag_run is None:
        raise ApplicationError(
            f"run {ref.run_id!r} of DAG {ref.dag_id!r} isn't in the database any more",
            type=RUN_GONE,
            non_retryable=True,
        )
    dag = dag_of_run(dag_run, session)
    if dag is None:
        raise ApplicationError(
            f"DAG {ref.dag_id!r} isn't in the database any more", type=RUN_GONE, non_retryable=True
        )
    return dag_run, dag


@activity.defn
@translate_database_errors
def load_serialized_dag(ref: RunRef) -> LoadedDag:
    """Read what the workflow needs of the DAG that a run uses."""
    with transaction() as session:
        dag_run, dag = _locked_run(ref, session)
        timeout_at = None
        if dag.dagrun_timeout and dag_run.start_date:
            timeout_at = (dag_run.start_date + dag.dagrun_timeout).timestamp()
        chosen = managed_runs.get_on_worker_lost(ref.dag_id, ref.run_id, session) or on_worker_lost()
        return LoadedDag(
            len(dag.task_dict),
            timeout_at,
            chosen,
            structure=pack_structure(dag),
            run=run_facts(dag_run, session),
            former=pack_former_tries(dag_run, session),
        )


@activity.defn
@translate_database_errors
def ensure_task_instances(ref: RunRef) -> int:
    """Create the task instances that the run's DAG asks for and that aren't there; return how many there are."""
    with transaction() as session:
        dag_run, dag = _locked_run(ref, session)
        dag_run.dag = dag
        scheduler()._verify_integrity_if_dag_changed(dag_run=dag_run, session=session)
        session.flush()
        workflow_records.record_start(ref.dag_id, ref.run_id, activity.info(), session)
        return session.scalars(
            select(func.count())
            .select_from(TaskInstance)
            .where(TaskInstance.dag_id == ref.dag_id, TaskInstance.run_id == ref.run_id)
        ).one()


def _record_cleared(request: PassInput) -> None:
    """Record the end of tries that were cleared, and whose worker was lost before it could."""
    for task_id, map_index in request.cancelled:
        record_end_if_cleared(dag_id=request.dag_id, task_id=task_id, run_id=request.run_id, map_index=map_index)


@activity.defn
@translate_database_errors
def schedule_pass(request: PassInput) -> PassResult:
    """Take one scheduling decision: see :class:`SchedulingPass`."""
    _record_cleared(request)
    with transaction() as session:
        dag_run, dag = _locked_run(request, session)
        if dag_run.state != DagRunState.RUNNING:
            return PassResult(run_state=dag_run.state, stop=sorted(request.in_flight), idle=True)
        if request.resync and not dag_run.bundle_version:
            scheduler()._verify_integrity_if_dag_changed(dag_run=dag_run, session=session)
        result = SchedulingPass(dag_run, dag, session).run(request)
        check_size(result, f"what a scheduling pass decided about run {request.run_id!r}")
    for queue in {task.queue for task in result.ready if task.queue is not None}:
        airflow_queues.announce(queue)
    return result


@activity.defn
@translate_database_errors
def sync_task_status_batch(request: TaskFailures) -> None:
    """Record tries whose outcome only the workflow knows, such as one whose worker was lost once too often."""
    for failure in request.failures:
        key = TaskInstanceKey(
            request.dag_id, failure.task_id, request.run_id, failure.try_number, failure.map_index
        )
        with transaction() as session:
            session.add(Log(event="worker lost", task_instance=key, extra=failure.reason[:500]))
        record_ended_process(key)


@activity.defn
@translate_database_errors
def sync_dagrun_status(request: RunStatus) -> RunFinished:
    """
    Finish a run in one transaction, as Airflow's scheduler would: state, callback requests, the DAG's run count.

    A run that isn't finished after all, since somebody cleared a task meanwhile, is left as it is.
    """
    with transaction() as session:
        dag_run, dag = _locked_run(request, session)
        dag_run.dag = dag
        if request.error is not None or request.cancelled:
            if request.error is not None:
                log.error("Run failed outside its tasks", run_id=request.run_id, error=request.error)
                session.add(
                    Log(event="failed", dag_id=request.dag_id, run_id=request.run_id, extra=request.error)
                )
            set_dag_run_state_to_failed(dag=dag, run_id=request.run_id, commit=True, session=session)
            session.flush()
        callback = None
        if dag_run.state == DagRunState.RUNNING:
            callback = scheduler()._schedule_dag_run(dag_run, session)
        if callback is not None:
            DatabaseCallbackSink().send(callback, session=session)
        session.flush()
        state = session.scalars(select(DagRun._state).where(DagRun.id == dag_run.id)).one()
        if state in State.finished_dr_states:
            managed_runs.unassign(request.dag_id, request.run_id, session)
            workflow_records.record_end(request.dag_id, request.run_id, state, session)
            if dag_run.backfill_id is not None and rollout.runs_without_airflow_scheduler():
                scheduler()._mark_backfills_complete(session=session)
        else:
            # A stock scheduler takes a value here for a run that it has just looked at.
            dag_run.last_scheduling_decision = None
        session.flush()
        session.refresh(dag_run, ("start_date", "end_date"))
        rows, times = pack_changed_rows(dag_run, request.known, session), run_times(dag_run)
    if state in State.finished_dr_states:
        if native_scheduling():
            create_due_runs(request.dag_id)
        start_queued_runs()
        assign_free_slots()
    return RunFinished(state, int(callback is not None), rows, times)
