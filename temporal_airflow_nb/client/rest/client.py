"""A client of a configured Airflow that asks its REST API instead of a gateway."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from types import MappingProxyType
from typing import Any, Final

from temporal_airflow_nb.client.rest import actions, logs, tables, tasks
from temporal_airflow_nb.client.rest.grid import RestGrid
from temporal_airflow_nb.client.rest.http import RestApi, base_address, path_of
from temporal_airflow_nb.client.rest.logs import RestLogTails
from temporal_airflow_nb.client.rows import TASK_COLUMNS, as_columns
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import UnavailableHereError

__all__ = ["RestClient", "base_address"]

_INTERVAL: Final = 1.0
_GRIDS: Final = 16
_WINDOW: Final = 14
_LOOKS: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {
    "xcoms": tasks.xcoms,
    "logs": logs.logs,
    "task": tasks.task,
    "runs": tables.runs,
    "runs_columns": tables.runs_columns,
    "assets": tables.assets,
    "dags": tables.dags,
    "pools": tables.pools,
}
_ACTIONS: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {
    "submit": actions.submit,
    "cancel": actions.cancel,
    "mark": actions.mark,
    "clear": actions.clear,
    "respond": actions.respond,
}


class RestClient:
    """
    Answers the operations of a gateway from Airflow's REST API. Safe in threads.

    Parameters
    ----------
    address
        Of Airflow, as in a browser.
    patience
        Seconds for which a question is asked again where nobody listens.
    history
        Returns the events of a run, by DAG id and run id, where Temporal is in reach too.

    Raises
    ------
    ServiceUnavailableError
        Nobody answers there.
    InvalidInputError
        What answers isn't Airflow, or refuses the token.
    """

    refused: Final = MappingProxyType(
        {"submit": "A cell's file can't be handed to Airflow through its REST API."}
    )
    """What can't be asked for, by operation, and why."""

    def __init__(
        self,
        address: str,
        *,
        patience: float = 10.0,
        history: Callable[[str, str], dict[str, Any]] | None = None,
    ) -> None:
        self._api = RestApi(address, patience=patience)
        self._history = history
        self.production: str | None = None
        self._tails = RestLogTails()
        self._grids: OrderedDict[tuple[str, str, int], RestGrid] = OrderedDict()
        self._lock = Lock()
        self._api.get("dags", limit=1)

    def __repr__(self) -> str:
        return f"RestClient({self.address!r})"

    def __copy__(self) -> RestClient:
        other = object.__new__(type(self))
        other.__dict__ = {**self.__dict__, "_api": self._api.with_patience(self.patience)}
        return other

    @property
    def address(self) -> str:
        """Where Airflow is."""
        return self._api.address

    @property
    def patience(self) -> float:
        """Seconds for which a question is asked again where nobody listens."""
        return self._api.patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        self._api.patience = seconds

    def close(self) -> None:
        """Do nothing: no connection is kept open."""

    def call(self, op: str, *, timeout: float = 60.0, **body: Any) -> dict[str, Any]:
        """Answer an operation as the gateway does; ``timeout`` is for how long ``watch`` and ``feed`` may wait.

        Raises
        ------
        UnavailableHereError
            The REST API can't answer this operation.
        TemporalAirflowError
            What else Airflow refuses.
        """
        answer = getattr(self, f"_op_{op}", None)
        if op in _LOOKS:
            return _LOOKS[op](self._api, **body)
        if op in _ACTIONS:
            done = _ACTIONS[op](self._api, **body)
            self._expire(body.get("dag_id"))
            return done
        if answer is None:
            raise UnavailableHereError(
                f"Airflow's REST API can't answer `{op}`.",
                hint="Connect to Airflow's database for that: configure it as for Airflow's command line.",
                op=op,
            )
        if op in ("watch", "feed"):
            body["timeout"] = timeout
        return answer(**body)

    def _expire(self, dag_id: str | None) -> None:
        with self._lock:
            grids = [grid for grid in self._grids.values() if grid.dag_id == dag_id]
        for grid in grids:
            grid.expire()

    def _op_ping(self) -> dict[str, Any]:
        return {"airflow": self._api.get("version")["version"]}

    def _op_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        grid = self._grid(dag_id, run_id, 1)
        grid.refresh(self._api)
        instances, run = grid.tasks(), grid.run
        told = {
            "dag_id": dag_id,
            "run_id": run_id,
            "workflow_id": workflow_id(dag_id, run_id),
            "state": run["state"],
            "start_date": run["start_date"],
            "end_date": run["end_date"],
            "airflow_state_counts": dict(Counter(task["state"] or "none" for task in instances)),
            "tasks": [{name: task[name] for name in TASK_COLUMNS} for task in instances],
        }
        digest = hashlib.sha1(json.dumps(told).encode(), usedforsecurity=False).hexdigest()[:16]
        return {**told, "version": digest, "links": grid.links}

    def _op_watch(
        self,
        dag_id: str,
        run_id: str,
        timeout: float,
        after: str | None = None,
        until_ended: bool = False,
    ) -> dict[str, Any]:
        def look() -> tuple[dict[str, Any], bool]:
            told = self._op_run(dag_id, run_id)
            ended = told["state"] in FINAL_RUN_STATES
            return told, ended if until_ended else told["version"] != after

        return self._until_news(look, timeout)

    def _op_feed(
        self, dag_id: str, run_id: str, timeout: float, runs: int = _WINDOW, after: str | None = None
    ) -> dict[str, Any]:
        grid = self._grid(dag_id, run_id, runs)

        def look() -> tuple[dict[str, Any], bool]:
            grid.refresh(self._api)
            return grid.answer(after)

        return self._until_news(look, timeout)

    def _until_news(self, look: Callable[[], tuple[dict[str, Any], bool]], timeout: float) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while True:
            answer, is_news = look()
            left = end - time.monotonic()
            if is_news or left <= 0:
                return answer
            time.sleep(min(_INTERVAL, left))

    def _op_tasks_columns(self, dag_id: str, run_id: str) -> dict[str, Any]:
        grid = self._grid(dag_id, run_id, 1)
        grid.refresh(self._api)
        return as_columns(grid.tasks(), TASK_COLUMNS)

    def _op_tries(self, dag_id: str, run_id: str) -> dict[str, Any]:
        grid = self._grid(dag_id, run_id, 1)
        grid.refresh(self._api)
        return tables.tries(self._api, grid.task_instances())

    def _op_log_tail(self, **body: Any) -> dict[str, Any]:
        return self._tails.read(self._api, **body)

    def _op_events(self, dag_id: str, run_id: str) -> dict[str, Any]:
        if self._history is None:
            raise UnavailableHereError(
                "A run's events are in Temporal, which isn't configured here.",
                hint="Set TEMPORAL_ADDRESS, or choose a profile: connect(profile=…, airflow=…).",
                op="events",
            )
        self._api.get(path_of("dags", dag_id, "dagRuns", run_id))
        return self._history(dag_id, run_id)

    def _grid(self, dag_id: str, run_id: str, window: int) -> RestGrid:
        key = (dag_id, run_id, window)
        with self._lock:
            grid = self._grids.pop(key, None) or RestGrid(self.address, *key)
            self._grids[key] = grid
            while len(self._grids) > _GRIDS:
                self._grids.popitem(last=False)
        return grid
