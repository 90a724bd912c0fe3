"""Calls Airflow's REST API as a user of a stack with Airflow's UI does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import benchmarks.airflow_api
from benchmarks.airflow_api import ApiError
from tests.support.waiting import until

ENDED = ("success", "failed")


class AirflowApi(benchmarks.airflow_api.AirflowApi):
    """Calls ``/api/v2``. ``url`` is that of the UI: ``stack.links["airflow"]``."""

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self.call("PATCH", path, body)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self.call("POST", path, body)

    def dag_appears(self, dag_id: str, timeout: float = 120) -> dict[str, Any]:
        """Wait until Airflow has the DAG, and return it."""
        return until(lambda: self._find(f"dags/{quote(dag_id)}"), f"DAG {dag_id}", timeout)

    def unpause(self, dag_id: str) -> None:
        self.patch(f"dags/{quote(dag_id)}", {"is_paused": False})

    def trigger(self, dag_id: str, run_id: str | None = None, conf: Mapping[str, Any] | None = None) -> str:
        """Trigger a run as the UI's button does; return its id."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf or {})}
        return str(self.post(f"dags/{quote(dag_id)}/dagRuns", body)["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return self.get(f"dags/{quote(dag_id)}/dagRuns/{quote(run_id)}")

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the task instances by id, mapped ones by ``id[index]``."""
        path = f"dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances?limit=1000"
        found = self.get(path)["task_instances"]
        return {
            ti["task_id"] if ti["map_index"] < 0 else f"{ti['task_id']}[{ti['map_index']}]": ti
            for ti in found
        }

    def wait(self, dag_id: str, run_id: str, timeout: float = 120) -> str:
        """Wait until the run has ended, and return its state."""
        run = until(
            lambda: run if (run := self.run(dag_id, run_id))["state"] in ENDED else None,
            f"the end of {dag_id} {run_id}",
            timeout,
        )
        return str(run["state"])

    def _find(self, path: str) -> Any:
        try:
            return self.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return None
