"""Make a stock scheduler skip managed runs, and DAGs that have a Temporal Schedule.

Otherwise it would schedule the tasks of these runs, which Temporal executes, a second time, queue those that wait for a
slot, and create the due runs. ``install`` wraps private functions of Airflow in the scheduler's process. They are
restricted in SQL rather than by filtering their results, because Airflow limits the results to a number of rows, in
which managed runs must take no place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from temporal_airflow_nb.errors import UnsupportedVersionError

FALLBACK_HINT = (
    "Install a supported version of Airflow, or set `[core] orchestrator` to `DefaultOrchestrator`."
)

# Set by the thread that starts the process, and never reset.
_installed = False
_calls_back = False


def install() -> None:
    """
    Wrap the functions with which the scheduler searches for work.

    Raises
    ------
    UnsupportedVersionError
        A function doesn't exist, or has other parameters than expected.
    """
    global _installed
    if _installed:
        return
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance

    from temporal_airflow_nb.config.environment import native_scheduling
    from temporal_airflow_nb.orchestration.outbox.locks import DatabaseLock, acquire
    from temporal_airflow_nb.orchestration.outbox.query_restriction import restrict_queries, run_is_unmanaged
    from temporal_airflow_nb.orchestration.schedules.records import select_native_dag_ids

    check_signatures()
    examine: Any = DagRun.get_running_dag_runs_to_examine
    to_queue: Any = SchedulerJobRunner._executable_task_instances_to_queued
    start_queued: Any = SchedulerJobRunner._start_queued_dagruns
    needing: Any = DagModel.dags_needing_dagruns

    # Airflow calls it to find the runs whose tasks it schedules, in `_do_scheduling`.
    def get_running_dag_runs_to_examine(_: type[DagRun], session: Any) -> Any:
        with restrict_queries(DagRun.__tablename__, run_is_unmanaged) as restriction:
            runs = examine(session=session)
        # Checked at each call, unlike the other searches: a task that runs twice is worse than a scheduler that ends.
        if not restriction.restricted_queries:
            raise UnsupportedVersionError(
                "Airflow's scheduler searches for runs in an unknown way: it would run tasks a second time.",
                hint=FALLBACK_HINT,
            )
        return runs

    # Airflow calls it to find the SCHEDULED tasks that get a slot. `DecidingScheduler` in a worker calls it as well,
    # but a worker doesn't install these filters.
    @wraps(to_queue)
    def _executable_task_instances_to_queued(self: Any, max_tis: int, session: Any) -> Any:
        with restrict_queries(TaskInstance.__tablename__, run_is_unmanaged):
            return to_queue(self, max_tis=max_tis, session=session)

    # No restriction here: Airflow starts the queued runs of all DAGs, and `session_listeners` takes over those that
    # Temporal executes. Airflow commits right after the call, which releases the lock.
    @wraps(start_queued)
    def _start_queued_dagruns(self: Any, session: Any) -> Any:
        acquire(session, DatabaseLock.START_RUNS)
        return start_queued(self, session=session)

    # Airflow calls it to find the DAGs whose next run is due.
    def dags_needing_dagruns(_: type[DagModel], session: Any) -> Any:
        if not native_scheduling():
            return needing(session=session)
        with restrict_queries(DagModel.__tablename__, lambda dag: dag.dag_id.not_in(select_native_dag_ids())):
            return needing(session=session)

    DagRun.get_running_dag_runs_to_examine = classmethod(get_running_dag_runs_to_examine)
    DagModel.dags_needing_dagruns = classmethod(dags_needing_dagruns)
    SchedulerJobRunner._executable_task_instances_to_queued = _executable_task_instances_to_queued
    SchedulerJobRunner._start_queued_dagruns = _start_queued_dagruns
    _installed = True


def call_before_scheduling(callback: Callable[[], None]) -> None:
    """Make the scheduler call ``callback`` in its process when it starts, before its loop."""
    global _calls_back
    if _calls_back:
        return
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    execute: Any = SchedulerJobRunner._execute

    @wraps(execute)
    def _execute(self: Any) -> Any:
        callback()
        return execute(self)

    SchedulerJobRunner._execute = _execute
    _calls_back = True


def require_installed() -> None:
    """
    Raise an error unless the filters are installed in this process.

    Only then may a run be taken over here: the process moves runs to running, and would schedule their tasks as well.

    Raises
    ------
    UnsupportedVersionError
        The filters aren't installed.
    """
    if not _installed:
        raise UnsupportedVersionError(
            "A run was started by a process that would run its tasks a second time, beside Temporal.",
            hint="Start runs with `airflow scheduler`, in an environment that loads this package's plugin.",
        )


def check_signatures() -> None:
    """
    Check that the wrapped functions have the expected parameters.

    Raises
    ------
    UnsupportedVersionError
        A function doesn't exist, or has other parameters.
    """
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun

    for owner, name, expected in (
        (DagRun, "get_running_dag_runs_to_examine", ["session"]),
        (SchedulerJobRunner, "_executable_task_instances_to_queued", ["self", "max_tis", "session"]),
        (SchedulerJobRunner, "_start_queued_dagruns", ["self", "session"]),
        (SchedulerJobRunner, "_execute", ["self"]),
        (DagModel, "dags_needing_dagruns", ["session"]),
    ):
        function = getattr(owner, name, None)
        found = list(inspect.signature(function).parameters) if function is not None else None
        if found != expected:
            difference = "doesn't exist" if found is None else f"takes {', '.join(found)}"
            raise UnsupportedVersionError(
                f"`{owner.__name__}.{name}` of this Airflow {difference}: "
                "its scheduler can't be made to skip Temporal's runs.",
                hint=FALLBACK_HINT,
            )
