"""The activities that read and write Airflow's database for the workflow, without user code.

They are local activities, executed in the worker's transaction threads. Each transaction locks the row of its run
first (``_lock_run``), so that two passes over one run never overlap, whoever starts them. Work on other runs (creating
due runs, starting queued ones, assigning slots) happens after the commit, in transactions of its own: these take their
locks in another order, START_RUNS before the rows of runs.

An activity may be executed again after its transaction has committed, if the worker died before it reported the result.
Each is therefore repeatable: it derives what to do from the database.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

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
from temporal_airflow_nb.tasks.callbacks import record_end_if_cleared, record_ended_process
from temporal_airflow_nb.tasks.dags import dag_of_run
from temporal_airflow_nb.tasks.database import transaction

if TYPE_CHECKING:
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

log = structlog.get_logger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


class _OfRun(Protocol):
    """The input of an activity that is about one run."""

    @property
    def dag_id(self) -> str: ...

    @property
    def run_id(self) -> str: ...


def translate_database_errors(function: F) -> F:
    """Turn errors of the database driver into errors whose type the workflow can act on."""

    @wraps(function)
    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except (OperationalError, ConnectionError) as error:
            # Deadlocks and locked rows are OperationalErrors, too. Not retryable: `run_transaction` tries again, after
            # a timer of the workflow, which survives the worker.
            raise ApplicationError(
                _first_line(error), type=DATABASE_UNAVAILABLE, non_retryable=True
            ) from None
        except DBAPIError as error:
            # Its text includes the statement's parameters, and the database's own text may quote values: neither may
            # enter Temporal's history. The worker's log has both.
            log.error("A statement failed", activity=function.__name__, exc_info=error)
            names = f"{type(error).__name__} of {type(error.orig).__name__}"
            raise ApplicationError(f"{names}: see the worker's log") from None

    return call  # type: ignore[return-value]


def _first_line(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0][:500]


def _lock_run(ref: _OfRun, session: Session) -> tuple[DagRun, SerializedDAG]:
    # Ends with the transaction. On SQLite `transaction()` has taken the write lock of the whole database.
    dag_run = session.scalar(
        select(DagRun)
        .where(DagRun.dag_id == ref.dag_id, DagRun.run_id == ref.run_id)
        .with_for_update(of=DagRun)
    )
    if dag_run is None:
        raise ApplicationError(
            f"Run {ref.run_id!r} of DAG {ref.dag_id!r} is no longer in Airflow's database.",
            type=RUN_GONE,
            non_retryable=True,
        )
    dag = dag_of_run(dag_run, session)
    if dag is None:
        raise ApplicationError(
            f"DAG {ref.dag_id!r} is no longer in Airflow's database.", type=RUN_GONE, non_retryable=True
        )
    return dag_run, dag


@activity.defn
@translate_database_errors
def load_serialized_dag(ref: RunRef) -> LoadedDag:
    """Read the DAG of a run as far as the workflow needs it."""
    with transaction() as session:
        dag_run, dag = _lock_run(ref, session)
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
    """Create the missing task instances of a run; return how many the run has."""
    with transaction() as session:
        dag_run, dag = _lock_run(ref, session)
        dag_run.dag = dag
        # A run that isn't tied to a version of its bundle moves to the DAG's latest version here, as in Airflow's
        # scheduler, and gets the task instances that this version adds.
        scheduler()._verify_integrity_if_dag_changed(dag_run=dag_run, session=session)
        session.flush()
        workflow_records.record_start(ref.dag_id, ref.run_id, activity.info(), session)
        count: int = session.scalars(
            select(func.count())
            .select_from(TaskInstance)
            .where(TaskInstance.dag_id == ref.dag_id, TaskInstance.run_id == ref.run_id)
        ).one()
        return count


def _record_cleared(request: PassInput) -> None:
    """Record the end of cleared tries, unless their worker has done it."""
    for task_id, map_index in request.cancelled:
        record_end_if_cleared(
            dag_id=request.dag_id, task_id=task_id, run_id=request.run_id, map_index=map_index
        )


@activity.defn
@translate_database_errors
def schedule_pass(request: PassInput) -> PassResult:
    """Take the next scheduling decisions for a run: see :class:`SchedulingPass`."""
    # Before the transaction of the pass: Airflow's code for an ended process may commit its session, as it does after
    # a request for a callback.
    _record_cleared(request)
    with transaction() as session:
        dag_run, dag = _lock_run(request, session)
        if dag_run.state != DagRunState.RUNNING:
            return PassResult(run_state=dag_run.state, stop=sorted(request.in_flight), idle=True)
        # Before the pass: it decides with the task instances that a new version of the DAG adds.
        if request.resync and not dag_run.bundle_version:
            scheduler()._verify_integrity_if_dag_changed(dag_run=dag_run, session=session)
        result = SchedulingPass(dag_run, dag, session).run(request)
        # Before the commit: a pass whose result can't reach the workflow must not change the database.
        check_size(result, f"The result of a scheduling pass of run {request.run_id!r}")
    for queue in {task.queue for task in result.ready if task.queue is not None}:
        airflow_queues.announce(queue)
    return result


@activity.defn
@translate_database_errors
def sync_task_status_batch(request: TaskFailures) -> None:
    """Record failed tries whose end no worker has recorded, as when their worker was lost too often."""
    # `record_ended_process` has a transaction of its own, on the scoped session of this thread, which Airflow's code
    # commits and closes.
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
    Finish a run as Airflow's scheduler does, in one transaction.

    The transaction contains the run's state, its callback requests and the DAG's number of running runs. A run with
    unfinished tasks, because a user cleared one meanwhile, stays running.
    """
    with transaction() as session:
        dag_run, dag = _lock_run(request, session)
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
            # `update_state` has set it. Airflow's scheduler sorts runs by it, and starts those without a value first.
            dag_run.last_scheduling_decision = None
        session.flush()
        session.refresh(dag_run, ("start_date", "end_date"))
        rows, times = pack_changed_rows(dag_run, request.known, session), run_times(dag_run)
    if state in State.finished_dr_states:
        # The run has given back its place and its slots: other runs may go on. If the worker dies here, the loops of
        # the next one do the same: `ScheduleSynchronizer`, `Dispatcher.reconcile` and `SlotWatcher`.
        if native_scheduling():
            create_due_runs(request.dag_id)
        start_queued_runs()
        assign_free_slots()
    return RunFinished(state, int(callback is not None), rows, times)
