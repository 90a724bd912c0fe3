"""The client of a configured Airflow, through its REST API instead of a gateway.

Runs in the user's process; a notebook, a script or the command line calls it, in any number of threads. ``_lock``
protects the list of grids, which the copies of a client share. Each grid has a lock of its own, which no thread takes
while it holds ``_lock``.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar

from temporal_airflow_nb.client.capabilities import Backend, refusals_of
from temporal_airflow_nb.client.protocol import StackClient
from temporal_airflow_nb.client.rest import actions, logs, tables, tasks
from temporal_airflow_nb.client.rest.grid import RestGrid
from temporal_airflow_nb.client.rest.http import RestApi, base_address, path_of
from temporal_airflow_nb.client.rest.logs import RestLogTails
from temporal_airflow_nb.client.rows import as_table
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.messages.grid import GridChanges
from temporal_airflow_nb.messages.requests import (
    GRID_RUNS,
    ClearTasks,
    JsonObject,
    MarkTasks,
    RespondToTask,
)
from temporal_airflow_nb.messages.runs import ActionResult, HumanAnswer, RunRow, RunSnapshot, Triggered
from temporal_airflow_nb.messages.services import Pong
from temporal_airflow_nb.messages.tables import TASK_COLUMNS, Table
from temporal_airflow_nb.messages.tasks import Log, LogTail, TaskDetails, XCom

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RestClient", "base_address"]

T = TypeVar("T")

# Seconds between two requests of a caller that waits for a change.
_INTERVAL: Final = 1.0
# Beyond this number, the client forgets the grid that was requested longest ago.
_GRIDS: Final = 16


class RestClient(StackClient):
    """
    Carries out operations through Airflow's REST API. Safe to use from several threads.

    The API has no long polls, so a caller that waits for a change sends requests once a second. All callers, and all
    copies of a client, share the grid of a run, so that a second caller causes no further requests.

    Parameters
    ----------
    address
        Of Airflow, as in a browser.
    retry_for
        Seconds for which a question is asked again if Airflow can't be reached. Actions are sent once.
    events
        Returns a run's events, by DAG id and run id, if Temporal is configured too.

    Raises
    ------
    ServiceUnavailableError
        Nothing answers at the address.
    InvalidInputError
        The server that answers isn't Airflow, or refuses the token.
    """

    timeout: float = 60.0
    """Not used: each request to Airflow may take 15 s."""

    def __init__(
        self,
        address: str,
        *,
        retry_for: float = 10.0,
        events: Callable[[str, str], Table] | None = None,
    ) -> None:
        self._api = RestApi(address, retry_for=retry_for)
        self._events = events
        self.production: str | None = None
        self.refusals = {
            operation: refusal
            for operation, refusal in refusals_of(Backend.REST).items()
            if not (refusal.is_conditional and events is not None)
        }
        self._tails = RestLogTails()
        self._grids: OrderedDict[tuple[str, str, int], RestGrid] = OrderedDict()
        self._lock = Lock()
        # Raises if the address or the token is wrong.
        self._api.get("dags", limit=1)

    def __repr__(self) -> str:
        return f"RestClient({self.address!r})"

    def __copy__(self) -> Self:
        """Return a client that shares the token and the grids, but can have another ``retry_for``."""
        # Without `__init__`, which sends a request. `copy.copy` would call this method again.
        other = object.__new__(type(self))
        other.__dict__ = {**self.__dict__, "_api": copy.copy(self._api)}
        return other

    @property
    def address(self) -> str:
        """Airflow's address."""
        return self._api.address

    @property
    def retry_for(self) -> float:
        """Seconds for which a question is asked again if Airflow can't be reached."""
        return self._api.retry_for

    @retry_for.setter
    def retry_for(self, seconds: float) -> None:
        self._api.retry_for = seconds

    def close(self) -> None:
        """Do nothing: the client keeps no connection open."""

    def trigger_dag(
        self, dag_id: str, *, conf: JsonObject | None = None, run_id: str | None = None
    ) -> Triggered:
        """Create a run of a DAG that Airflow knows already."""
        return self._acted_on(dag_id, actions.trigger(self._api, dag_id, conf, run_id))

    def get_run(self, dag_id: str, run_id: str) -> RunSnapshot:
        """Return a run with all its task instances."""
        grid = self._grid(dag_id, run_id, 1)
        grid.refresh(self._api)
        # The run first: another thread may refresh the grid in between, and a run must not appear as ended while its
        # tasks appear as running.
        run, instances = grid.run, grid.tasks()
        snapshot: RunSnapshot = {
            "dag_id": dag_id,
            "run_id": run_id,
            "workflow_id": workflow_id(dag_id, run_id),
            "state": run["state"],
            "start_date": run["start_date"],
            "end_date": run["end_date"],
            "version": "",
            "airflow_state_counts": dict(Counter(task["state"] or "none" for task in instances)),
            "tasks": instances,
            "links": {},
        }
        digest = hashlib.sha1(json.dumps(snapshot).encode(), usedforsecurity=False).hexdigest()[:16]
        return {**snapshot, "version": digest, "links": grid.links}

    def watch_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        after: str | None = None,
        until_ended: bool = False,
        timeout: float = 30.0,
    ) -> RunSnapshot:
        """Wait for a run to change, or to end; see :meth:`StackClient.watch_run`."""

        def ask() -> tuple[RunSnapshot, bool]:
            snapshot = self.get_run(dag_id, run_id)
            if until_ended:
                return snapshot, snapshot["state"] in FINAL_RUN_STATES
            return snapshot, snapshot["version"] != after

        return _ask_until_news(ask, timeout)

    def list_runs(self, dag_id: str | None = None, *, limit: int = 100) -> list[RunRow]:
        """Return the latest runs, newest first."""
        return tables.runs(self._api, dag_id, limit)

    def get_grid_changes(
        self,
        dag_id: str,
        run_id: str,
        *,
        after: str | None = None,
        runs: int = GRID_RUNS,
        timeout: float = 30.0,
    ) -> GridChanges:
        """Wait for a DAG's grid to change; see :meth:`StackClient.get_grid_changes`."""
        grid = self._grid(dag_id, run_id, runs)

        def ask() -> tuple[GridChanges, bool]:
            grid.refresh(self._api)
            return grid.answer(after)

        return _ask_until_news(ask, timeout)

    def get_tasks_table(self, dag_id: str, run_id: str) -> Table:
        """Return a run's task instances, in an order in which they can run."""
        grid = self._grid(dag_id, run_id, 1)
        grid.refresh(self._api)
        return as_table(grid.tasks(), TASK_COLUMNS)

    def get_runs_table(
        self, dag_id: str | None = None, *, state: str | None = None, limit: int | None = 100
    ) -> Table:
        """Return the latest runs, newest first; all of them if ``limit`` is None."""
        return tables.runs_table(self._api, dag_id, state, limit)

    def get_tries_table(self, dag_id: str, run_id: str) -> Table:
        """Return every try of a run's task instances."""
        grid = self._grid(dag_id, run_id, 1)
        grid.refresh(self._api)
        return tables.tries_table(self._api, grid.task_instances())

    def cancel_run(self, dag_id: str, run_id: str | None = None) -> ActionResult:
        """End a run as Airflow's "mark failed" does; the DAG's latest if ``run_id`` is None."""
        return self._acted_on(dag_id, actions.cancel(self._api, dag_id, run_id))

    def clear_tasks(self, request: ClearTasks) -> ActionResult:
        """Run tasks, or a whole run, again."""
        return self._acted_on(request.dag_id, actions.clear(self._api, request))

    def mark_tasks(self, request: MarkTasks) -> ActionResult:
        """Set the state of tasks, or of a run."""
        return self._acted_on(request.dag_id, actions.mark(self._api, request))

    def respond_to_task(self, request: RespondToTask) -> HumanAnswer:
        """Answer a task that waits for a person."""
        return self._acted_on(request.dag_id, actions.respond(self._api, request))

    def get_log(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
    ) -> Log:
        """Return the log of a try; of the latest if ``try_number`` is None."""
        return logs.log(self._api, dag_id, run_id, task_id, map_index, try_number)

    def tail_log(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int = -1,
        try_number: int | None = None,
        *,
        after: int = 0,
    ) -> LogTail:
        """Return the lines of a log after the first ``after`` ones, and whether more can follow."""
        return self._tails.read(self._api, dag_id, run_id, task_id, map_index, try_number, after)

    def list_xcoms(self, dag_id: str, run_id: str) -> list[XCom]:
        """Return a run's XComs, as Airflow's API deserialises them."""
        return tasks.xcoms(self._api, dag_id, run_id, "~")

    def get_task(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
    ) -> TaskDetails:
        """Return a try in detail: rendered fields, XComs, error, end of the log."""
        return tasks.task(self._api, dag_id, run_id, task_id, map_index, try_number)

    def get_events_table(self, dag_id: str, run_id: str) -> Table:
        """Return the history of a run's workflow in Temporal, if that is configured too."""
        if self._events is None:
            return super().get_events_table(dag_id, run_id)
        # Raises if Airflow has no such run.
        self._api.get(path_of("dags", dag_id, "dagRuns", run_id))
        return self._events(dag_id, run_id)

    def get_assets_table(self, dag_id: str, run_id: str) -> Table:
        """Return the asset events that created a run, and those that its tasks produced."""
        return tables.assets_table(self._api, dag_id, run_id)

    def get_dags_table(self) -> Table:
        """Return the DAGs that Airflow knows."""
        return tables.dags_table(self._api)

    def get_pools_table(self) -> Table:
        """Return Airflow's pools and how their slots are used."""
        return tables.pools_table(self._api)

    def ping(self) -> Pong:
        """Return Airflow's version."""
        return {"airflow": self._api.get("version")["version"]}

    def _acted_on(self, dag_id: str, answer: T) -> T:
        """Have the DAG's grids read again at once, after an action; return the action's answer."""
        with self._lock:
            grids = [grid for grid in self._grids.values() if grid.dag_id == dag_id]
        # After `_lock` is released: `expire` waits while a thread reads the grid.
        for grid in grids:
            grid.expire()
        return answer

    def _grid(self, dag_id: str, run_id: str, window: int) -> RestGrid:
        key = (dag_id, run_id, window)
        with self._lock:
            # Removed and added again, so that the grid that was requested last is the last in the dictionary.
            grid = self._grids.pop(key, None) or RestGrid(self.address, *key)
            self._grids[key] = grid
            while len(self._grids) > _GRIDS:
                self._grids.popitem(last=False)
        return grid


def _ask_until_news(ask: Callable[[], tuple[T, bool]], timeout: float) -> T:
    """Ask once a second until the answer is new, for ``timeout`` seconds at most; return the answer."""
    end = time.monotonic() + timeout
    while True:
        answer, is_news = ask()
        left = end - time.monotonic()
        if is_news or left <= 0:
            return answer
        time.sleep(min(_INTERVAL, left))
