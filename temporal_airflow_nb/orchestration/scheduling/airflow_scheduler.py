"""Airflow's scheduler used as a library, without its loop, its executors and its job.

Its methods are private parts of Airflow. The worker calls them so that a run is scheduled, started and finished exactly
as by the installed Airflow; their signatures are checked in ``tests/compatibility/test_airflow_contract.py``.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

from temporal_airflow_nb.tasks.dags import dag_bag


class _UnlimitedExecutor:
    """The executor that the scheduler asks for free slots, and that always has some: tasks go to Temporal."""

    name = None
    team_name = None
    pre_assigns_external_executor_id = False
    slots_available = 1_000_000


class DecidingScheduler(SchedulerJobRunner):  # type: ignore[misc]
    """
    A scheduler whose methods are called one by one, in the transaction of the caller.

    It keeps no state between calls, and threads may share it.
    """

    def __init__(self) -> None:
        executor = _UnlimitedExecutor()
        # Without a job id, `queued_by_job_id` stays NULL on the tasks that it queues. A stock scheduler finds tasks by
        # that column when it resets orphans (`adopt_or_reset_orphaned_tasks`), fails tasks without heartbeats and
        # requeues stuck ones: it never finds these.
        super().__init__(SimpleNamespace(id=None, job_type=None, max_tis_per_query=512), executors=[executor])
        self.scheduler_dag_bag = dag_bag()

    def _try_to_load_executor(self, workload: Any, session: Any, team_name: Any = None) -> Any:  # noqa: ARG002
        # Airflow would load the executor that the task names; here every task goes to Temporal.
        return self.executor


# Two threads that call it first at the same time may make two schedulers. That does no harm: they have no state.
@lru_cache(maxsize=1)
def scheduler() -> DecidingScheduler:
    """Return this process's scheduler."""
    return DecidingScheduler()
