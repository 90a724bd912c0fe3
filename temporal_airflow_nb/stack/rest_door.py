"""A client of a configured Airflow that asks its REST API instead of a gateway."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import Any, Final

from temporal_airflow_nb.config import workflow_id
from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import UnavailableHereError
from temporal_airflow_nb.stack import rest_actions, rest_tasks
from temporal_airflow_nb.stack.columns import TASK_COLUMNS, as_columns
from temporal_airflow_nb.stack.rest_api import RestApi, base_address, path_of
from temporal_airflow_nb.stack.rest_grid import RestGrid, run_row, task_row

__all__ = ["RestDoor", "base_address"]

_INTERVAL: Final = 1.0
_GRIDS: Final = 32
_WINDOW: Final = 14
_RUN_COLUMNS = (
    "dag_id",
    "run_id",
    "state",
    "run_type",
    "logical_date",
    "run_after",
    "queued_at",
    "start_date",
    "end_date",
    "version",
    "note",
)
_TRY_COLUMNS = (
    "task_id",
    "map_index",
    "try_number",
    "state",
    "operator",
    "queued_dttm",
    "start_date",
    "end_date",
    "duration",
    "hostname",
    "pool",
    "queue",
)
_LOOKS: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {
    "xcoms": rest_tasks.xcoms,
    "logs": rest_tasks.logs,
    "log_tail": rest_tasks.log_tail,
    "task": rest_tasks.task,
}
_ACTIONS: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {
    "submit": rest_actions.submit,
    "cancel": rest_actions.cancel,
    "mark": rest_actions.mark,
    "clear": rest_actions.clear,
    "respond": rest_actions.respond,
}


class RestDoor:
    """
    Answers the operations of a gateway from Airflow's REST API. Safe in threads.

    Parameters
    ----------
    address
        Of Airflow, as in a browser.
    patience
        Seconds for which a question is asked again where nobody listens.

    Raises
    ------
    ServiceUnavailableError
        Nobody answers there.
    InvalidInputError
        What answers isn't Airflow, or refuses the token.
    """

    def __init__(self, address: str, *, patience: float = 10.0) -> None:
        self._api = RestApi(address, patience=patience)
        self._grids: OrderedDict[tuple[str, str, int], RestGrid] = OrderedDict()
        self._lock = Lock()
        self._api.get("dags", limit=1)

    def __repr__(self) -> str:
        return f"RestDoor({self.address!r})"

    def __copy__(self) -> RestDoor:
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
        grid.refresh()
        tasks, run = grid.tasks(), grid.run
        told = {
            "dag_id": dag_id,
            "run_id": run_id,
            "workflow_id": workflow_id(dag_id, run_id),
            "state": run["state"],
            "start_date": run["start_date"],
            "end_date": run["end_date"],
            "airflow_state_counts": dict(Counter(task["state"] or "none" for task in tasks)),
            "tasks": [{name: task[name] for name in TASK_COLUMNS} for task in tasks],
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
            grid.refresh()
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

    def _op_runs(self, dag_id: str | None = None, limit: int = 100) -> dict[str, Any]:
        rows = [{"dag_id": run["dag_id"], **run_row(run)} for run in self._latest_runs(dag_id, None, limit)]
        names = ("dag_id", "run_id", "state", "run_type", "start_date", "end_date")
        return {
            "runs": [
                {
                    **{name: row[name] for name in names},
                    "workflow_id": workflow_id(row["dag_id"], row["run_id"]),
                }
                for row in rows
            ]
        }

    def _op_runs_columns(
        self, dag_id: str | None = None, state: str | None = None, limit: int | None = None
    ) -> dict[str, Any]:
        rows = [{"dag_id": run["dag_id"], **run_row(run)} for run in self._latest_runs(dag_id, state, limit)]
        return as_columns(rows, _RUN_COLUMNS)

    def _latest_runs(self, dag_id: str | None, state: str | None, limit: int | None) -> Iterator[Any]:
        path = path_of("dags", dag_id or "~", "dagRuns")
        for number, run in enumerate(self._api.pages(path, "dag_runs", order_by="-id", state=state)):
            if limit is not None and number >= limit:
                return
            yield run

    def _op_tasks_columns(self, dag_id: str, run_id: str) -> dict[str, Any]:
        grid = self._grid(dag_id, run_id, 1)
        grid.refresh()
        return as_columns(grid.tasks(), TASK_COLUMNS)

    def _op_tries(self, dag_id: str, run_id: str) -> dict[str, Any]:
        grid = self._grid(dag_id, run_id, 1)
        grid.refresh()
        rows = []
        for task in grid.tasks():
            if task["try_number"] > 0:
                told = rest_tasks.tries_of(self._api, dag_id, run_id, task["task_id"], task["map_index"])
                rows += [
                    {**task_row(one), "hostname": one["hostname"], "queue": one["queue"]} for one in told
                ]
        return as_columns(rows, _TRY_COLUMNS)

    def _op_pools(self) -> dict[str, Any]:
        rows = list(self._api.pages("pools", "pools"))
        names = {"name": "pool"}
        return as_columns(
            [{names.get(name, name): value for name, value in row.items()} for row in rows],
            [names.get(name, name) for name in (rows[0] if rows else ("name",))],
        )

    def _grid(self, dag_id: str, run_id: str, window: int) -> RestGrid:
        key = (dag_id, run_id, window)
        with self._lock:
            grid = self._grids.pop(key, None) or RestGrid(self._api, *key)
            self._grids[key] = grid
            while len(self._grids) > _GRIDS:
                self._grids.popitem(last=False)
        return grid
