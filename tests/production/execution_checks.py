"""Assertions that Temporal, or Airflow's executor, executed a run."""

from __future__ import annotations

from collections import Counter
from typing import Any

from temporalio.client import WorkflowExecutionStatus

from temporal_airflow_nb.config.environment import workflow_id
from tests.production.cluster import Cluster, task_key


def executed_by(cluster: Cluster, dag_id: str, run_id: str) -> dict[str, list[str]]:
    """Return for each task of a run the kind of process that executed each try: ``worker`` or ``scheduler``."""
    workers, schedulers = cluster.pids("worker"), cluster.pids("scheduler")
    found: dict[str, list[str]] = {}
    for line in cluster.executions(dag_id, run_id):
        ancestors = set(line["ancestors"])
        kinds = [name for name, pids in (("worker", workers), ("scheduler", schedulers)) if ancestors & pids]
        assert len(kinds) == 1, f"{line} is of neither {workers} nor {schedulers}"
        found.setdefault(task_key(line), []).extend(kinds)
    return found


def workflow_states(cluster: Cluster, dag_id: str, run_id: str) -> list[WorkflowExecutionStatus]:
    """Return the states of all executions of a run's workflow so far."""

    async def find(client: Any) -> list[WorkflowExecutionStatus]:
        query = f"WorkflowId = '{workflow_id(dag_id, run_id)}'"
        return [execution.status async for execution in client.list_workflows(query)]

    return cluster.temporal(find)


def assert_temporal_executed(
    cluster: Cluster,
    dag_id: str,
    run_id: str,
    *tasks: str,
    state: str = "success",
    tries: dict[str, int] | None = None,
    times: int = 1,
) -> None:
    """
    Wait for the end of a run; assert that Temporal executed all of it, and each task the expected number of times.

    Parameters
    ----------
    *tasks
        The tasks that have run.
    state
        The final state of the run.
    tries
        The number of tries of tasks that ran more than once.
    times
        The number of workflows that the run has had, one after the other.
    """
    ended = cluster.wait_for_end(dag_id, run_id)
    assert ended == state, cluster.tasks(dag_id, run_id)
    cluster.wait_for(
        lambda: _closed(cluster, dag_id, run_id, times),
        f"{times} workflows of {dag_id} {run_id} to have closed",
    )
    expected = {task_id: ["worker"] * (tries or {}).get(task_id, 1) for task_id in tasks}
    assert executed_by(cluster, dag_id, run_id) == expected
    run = {"dag_id": dag_id, "run_id": run_id}
    of_run = "WHERE dag_id = :dag_id AND run_id = :run_id"
    assert (
        cluster.query(f"SELECT task_id FROM task_instance {of_run} AND queued_by_job_id IS NOT NULL", **run)
        == []
    )
    assert cluster.query(f"SELECT run_id FROM temporal_airflow_run {of_run}", **run) == []
    cluster.wait_for(
        lambda: not cluster.query(f"SELECT id FROM temporal_airflow_outbox {of_run}", **run),
        "an empty outbox",
    )


def _closed(cluster: Cluster, dag_id: str, run_id: str, times: int) -> bool:
    states = Counter(workflow_states(cluster, dag_id, run_id))
    assert not set(states) - {WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.COMPLETED}, states
    assert states.total() <= times, states
    return states[WorkflowExecutionStatus.COMPLETED] == times


def assert_airflow_executed(
    cluster: Cluster, dag_id: str, run_id: str, *tasks: str, state: str = "success"
) -> None:
    """Wait for the end of a run; assert that Airflow's executor executed it, and each task once."""
    assert cluster.wait_for_end(dag_id, run_id) == state
    assert executed_by(cluster, dag_id, run_id) == {task_id: ["scheduler"] for task_id in tasks}
    assert workflow_states(cluster, dag_id, run_id) == []
