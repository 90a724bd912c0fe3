"""A run that a test drives through the REST API, as a user does."""

from __future__ import annotations

from collections import Counter
from typing import Any

from temporalio.client import WorkflowExecutionStatus

from tests.production.cluster import Cluster, task_key
from tests.production.execution_checks import executed_by, workflow_states


class DrivenRun:
    """A run that Temporal executes or, if its DAG is called ``native_…``, Airflow's executor."""

    def __init__(self, cluster: Cluster, dag_id: str) -> None:
        self.cluster = cluster
        self.dag_id = dag_id
        self.run_id = cluster.trigger(dag_id)
        self.path = f"dags/{dag_id}/dagRuns/{self.run_id}"

    @property
    def is_native(self) -> bool:
        return self.dag_id.startswith("native_")

    def until_states(self, **states: str | None) -> None:
        """Wait until tasks have these states."""

        def reached() -> bool:
            found = self.cluster.tasks(self.dag_id, self.run_id)
            return all(found.get(task_id) == state for task_id, state in states.items())

        self.cluster.wait_for(reached, f"{self.dag_id} {states}")

    def until_begun(self, *task_ids: str, times: int = 1) -> None:
        """Wait until each of these tasks has started ``times`` times."""

        def begun() -> bool:
            found = self.executions()
            return all(found[task_id] >= times for task_id in task_ids)

        self.cluster.wait_for(begun, f"{self.dag_id}: {task_ids} to begin")

    def until_any_has_begun(self, *task_ids: str) -> None:
        """Wait until one of these tasks has started."""
        self.cluster.wait_for(
            lambda: any(self.executions()[task_id] for task_id in task_ids), f"{self.dag_id}: a task to begin"
        )

    def executions(self) -> Counter[str]:
        return Counter(map(task_key, self.cluster.executions(self.dag_id, self.run_id)))

    def open_gate(self) -> None:
        self.cluster.gate(self.dag_id, f"{self.run_id}.open").touch()

    def clear(self, *task_ids: str, **options: Any) -> list[str]:
        """Clear tasks, or without names the run; return the cleared task instances."""
        if not task_ids:
            self.cluster.api("POST", f"{self.path}/clear", {"dry_run": False, **options})
            return []
        body = {
            "dry_run": False,
            "only_failed": False,
            "dag_run_id": self.run_id,
            "task_ids": task_ids,
            **options,
        }
        answer = self.cluster.api("POST", f"dags/{self.dag_id}/clearTaskInstances", body)
        return sorted(task_key(ti) for ti in answer["task_instances"])

    def mark(self, state: str, task_id: str | None = None, **options: Any) -> None:
        """Mark a task or, without a name, the run."""
        if task_id is None:
            self.cluster.api("PATCH", self.path, {"state": state})
        else:
            body = {"new_state": state, **options}
            self.cluster.api("PATCH", f"{self.path}/taskInstances/{task_id}", body)

    def wait_for_end(self) -> dict[str, Any]:
        """Wait for the end; return the final states, and the number of starts of each task."""
        state = self.cluster.wait_for_end(self.dag_id, self.run_id)
        # The process of a marked task learns of it at its next heartbeat.
        self.cluster.wait_for(lambda: not self.is_alive(), f"the end of the tasks of {self.dag_id}")
        if not self.is_native:
            by = executed_by(self.cluster, self.dag_id, self.run_id)
            assert all(who == "worker" for tries in by.values() for who in tries), by
            self.cluster.wait_for(self.is_closed, f"the end of the workflow of {self.dag_id}")
            ended = set(workflow_states(self.cluster, self.dag_id, self.run_id))
            assert ended == {WorkflowExecutionStatus.COMPLETED}
        instances = self.cluster.instances(self.dag_id, self.run_id)
        return {
            "run": state,
            "tasks": {task_key(ti): (ti["state"], ti["try_number"]) for ti in instances},
            "executions": self.executions(),
        }

    def is_alive(self) -> bool:
        """Return whether a process of a task still runs."""
        return any(self.cluster.is_alive(line) for line in self.cluster.executions(self.dag_id, self.run_id))

    def is_closed(self) -> bool:
        """Return whether the workflow of the run has ended."""
        return WorkflowExecutionStatus.RUNNING not in workflow_states(self.cluster, self.dag_id, self.run_id)
