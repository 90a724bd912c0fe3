"""Who executed a run, and how often."""

from __future__ import annotations

from collections import Counter
from typing import Any

from temporalio.client import WorkflowExecutionStatus

from temporal_airflow_nb.config.environment import workflow_id
from tests.production.cluster import Cluster, task_key


def executed_by(cluster: Cluster, dag_id: str, run_id: str) -> dict[str, list[str]]:
    """Return, for each task of a run, the kinds of process that executed it: one for each try."""
    workers, schedulers = cluster.pids("worker"), cluster.pids("scheduler")
    found: dict[str, list[str]] = {}
    for line in cluster.executions(dag_id, run_id):
        ancestors = set(line["ancestors"])
        who = [name for name, pids in (("worker", workers), ("scheduler", schedulers)) if ancestors & pids]
        assert len(who) == 1, f"{line} is of neither {workers} nor {schedulers}"
        found.setdefault(task_key(line), []).extend(who)
    return found


def workflows(cluster: Cluster, dag_id: str, run_id: str) -> list[WorkflowExecutionStatus]:
    """Return the states of all executions of a run's workflow that there have been."""

    async def find(client: Any) -> list[WorkflowExecutionStatus]:
        query = f"WorkflowId = '{workflow_id(dag_id, run_id)}'"
        return [execution.status async for execution in client.list_workflows(query)]

    return cluster.temporal(find)


def temporal_executed(
    cluster: Cluster,
    dag_id: str,
    run_id: str,
    *tasks: str,
    state: str = "success",
    tries: dict[str, int] | None = None,
    times: int = 1,
) -> None:
    """
    Wait for the end of a run; check that Temporal executed it, all of it, and each task as often as it had to be.

    Parameters
    ----------
    *tasks
        The tasks that have run.
    state
        How the run ends.
    tries
        How often a task ran where it wasn't once.
    times
        How many workflows the run has had, one after the other.
    """
    ended = cluster.ended(dag_id, run_id)
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
    states = Counter(workflows(cluster, dag_id, run_id))
    assert not set(states) - {WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.COMPLETED}, states
    assert states.total() <= times, states
    return states[WorkflowExecutionStatus.COMPLETED] == times


def airflow_executed(cluster: Cluster, dag_id: str, run_id: str, *tasks: str, state: str = "success") -> None:
    """Wait for the end of a run; check that Airflow's own executor executed it, and each task once."""
    assert cluster.ended(dag_id, run_id) == state
    assert executed_by(cluster, dag_id, run_id) == {task_id: ["scheduler"] for task_id in tasks}
    assert workflows(cluster, dag_id, run_id) == []
