"""Airflow's REST API, as a user of a stack with Airflow's UI calls it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tests.waiting import until

ENDED = ("success", "failed")


class ApiError(Exception):
    """An answer that isn't a success."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status


class AirflowApi:
    """Calls ``/api/v2``. ``url`` is that of the UI: ``stack.links["airflow"]``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._token: str | None = None

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the answer of ``/api/v2/{path}``."""
        if self._token is None:
            self._token = self._request("GET", "/auth/token")["access_token"]
        return self._request(method, f"/api/v2/{path}", body)

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self.call("PATCH", path, body)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self.call("POST", path, body)

    def dag_appears(self, dag_id: str, timeout: float = 120) -> dict[str, Any]:
        """Wait until the DAG is there, and return it."""
        return until(lambda: self._find(f"dags/{quote(dag_id)}"), f"DAG {dag_id}", timeout)

    def unpause(self, dag_id: str) -> None:
        self.patch(f"dags/{quote(dag_id)}", {"is_paused": False})

    def trigger(self, dag_id: str, run_id: str | None = None, conf: Mapping[str, Any] | None = None) -> str:
        """Trigger a run as the UI's button does; returns its id."""
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

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode(errors="replace")[:500]) from error
