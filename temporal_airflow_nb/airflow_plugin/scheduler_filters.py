"""Keeps a stock scheduler off the runs that are Temporal's, and off the DAGs whose clock is Temporal.

It would schedule their tasks as well, queue those that wait for a slot, and create the runs that are due. The searches
are narrowed in SQL, so that what is ours takes no place within their limits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from temporal_airflow_nb.errors import UnsupportedVersionError

FALLBACK_HINT = (
    "Install an Airflow that this package knows, or set [core] orchestrator to DefaultOrchestrator."
)

_installed = False
_calls_back = False


def install() -> None:
    """
    Wrap what the scheduler searches with.

    Raises
    ------
    UnsupportedVersionError
        A function isn't there, or isn't called as it was.
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

    def get_running_dag_runs_to_examine(_: type[DagRun], session: Any) -> Any:
        with restrict_queries(DagRun.__tablename__, run_is_unmanaged) as restriction:
            runs = examine(session=session)
        if not restriction.restricted_queries:
            raise UnsupportedVersionError(
                "Airflow's scheduler examines runs in a way that this package doesn't know: it would run tasks twice.",
                hint=FALLBACK_HINT,
            )
        return runs

    @wraps(to_queue)
    def _executable_task_instances_to_queued(self: Any, max_tis: int, session: Any) -> Any:
        with restrict_queries(TaskInstance.__tablename__, run_is_unmanaged):
            return to_queue(self, max_tis=max_tis, session=session)

    @wraps(start_queued)
    def _start_queued_dagruns(self: Any, session: Any) -> Any:
        acquire(session, DatabaseLock.START_RUNS)
        return start_queued(self, session=session)

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
    """Have the scheduler call ``callback`` in its process, once it starts and before its loop."""
    global _calls_back
    if _calls_back:
        return
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    execute: Any = SchedulerJobRunner._execute

    @wraps(execute)
    def _execute(self: Any) -> Any:
        callback()
        return execute(self)

    SchedulerJobRunner._execute = _execute  # type: ignore[method-assign]
    _calls_back = True


def require_installed() -> None:
    """
    Refuse to take a run over in a process whose scheduler wouldn't keep off it.

    Raises
    ------
    UnsupportedVersionError
        The filters aren't there.
    """
    if not _installed:
        raise UnsupportedVersionError(
            "A run was started by a process that would run its tasks as well as Temporal does.",
            hint="Start runs with `airflow scheduler`, in an environment in which this package's plugin is loaded.",
        )


def check_signatures() -> None:
    """
    Check that the functions which are wrapped take what they took.

    Raises
    ------
    UnsupportedVersionError
        One doesn't.
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
            has = "is gone" if found is None else f"takes {', '.join(found)}"
            raise UnsupportedVersionError(
                f"{owner.__name__}.{name} of this Airflow {has}: Temporal's runs can't be kept apart.",
                hint=FALLBACK_HINT,
            )
