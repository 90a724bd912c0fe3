"""Airflow's own scheduler, as a library: its decisions without its loop, its executors and its job."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

from temporal_airflow_nb.tasks.dags import dag_bag


class _EveryTask:
    """What the scheduler asks of an executor: this one takes every task. Temporal's task queue is the real one."""

    name = None
    team_name = None
    pre_assigns_external_executor_id = False
    slots_available = 1_000_000


class DecidingScheduler(SchedulerJobRunner):
    """
    A scheduler that only answers.

    With no job of its own, ``queued_by_job_id`` stays NULL on the tasks it queues, which keeps the sweeps of a stock
    scheduler away from them.
    """

    def __init__(self) -> None:
        executor = _EveryTask()
        super().__init__(SimpleNamespace(id=None, job_type=None, max_tis_per_query=512), executors=[executor])  # type: ignore
        self.scheduler_dag_bag = dag_bag()

    def _try_to_load_executor(self, workload: Any, session: Any, team_name: Any = None) -> Any:  # noqa: ARG002
        return self.executor


@lru_cache(maxsize=1)
def scheduler() -> DecidingScheduler:
    """Return this process's scheduler."""
    return DecidingScheduler()
