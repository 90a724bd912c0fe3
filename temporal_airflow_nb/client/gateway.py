"""The client of the gateway, the HTTP server in a stack's worker process. Standard library only.

Runs in the user's process: a notebook's kernel, a script, the command line. A client has no state but its limits, so
that any number of threads may use it.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from temporal_airflow_nb.client.capabilities import Backend, Operation, refusals_of
from temporal_airflow_nb.client.protocol import StackClient
from temporal_airflow_nb.errors import (
    InvalidInputError,
    ServiceUnavailableError,
    TemporalAirflowError,
    from_dict,
)
from temporal_airflow_nb.messages.files import FileCheck, Submitted
from temporal_airflow_nb.messages.grid import GridChanges
from temporal_airflow_nb.messages.requests import (
    GRID_RUNS,
    MAX_REQUEST_BYTES,
    TOO_LARGE,
    TOO_LARGE_HINT,
    CancelRun,
    CheckFile,
    ClearTasks,
    GetGridChanges,
    GetRunsTable,
    ListRuns,
    MarkTasks,
    RespondToTask,
    RunRef,
    SubmitFile,
    TailLog,
    TryRef,
    WatchRun,
)
from temporal_airflow_nb.messages.runs import ActionResult, HumanAnswer, RunList, RunRow, RunSnapshot
from temporal_airflow_nb.messages.services import Pong, Queues, Schedules
from temporal_airflow_nb.messages.tables import Table
from temporal_airflow_nb.messages.tasks import Log, LogTail, TaskDetails, XCom, XComList

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

A = TypeVar("A")

# `watch_run` and `get_grid_changes` are long polls: the gateway may wait for the seconds that the request names before
# it answers. The connection waits this many seconds longer.
_GRACE: Final = 10.0
# If the answer to one of these operations is lost, the gateway may have carried it out, and a second request could
# carry it out again. So it isn't sent twice; the error shows this text instead.
_NOT_REPEATABLE: Final[Mapping[Operation, str]] = {
    "submit_file": "The run may have been created: see the list of runs.",
    "mark_tasks": "The states may have been set: see the run.",
    "clear_tasks": "The tasks may have been cleared: see the run.",
    "respond_to_task": "The answer may have been recorded: see the task's state.",
}


class GatewayClient(StackClient):
    """Carries out operations through a stack's gateway.

    Safe to use from several threads: each operation has its own connection.

    Parameters
    ----------
    address
        ``host:port``.
    token
        The gateway's secret, from ``stack.json``.
    retry_for
        Seconds for which a gateway that doesn't listen is tried again: the worker process may be restarting.
    timeout
        Seconds to wait for an answer.
    """

    refusals = refusals_of(Backend.GATEWAY)

    def __init__(self, address: str, token: str, *, retry_for: float = 20.0, timeout: float = 60.0) -> None:
        self._address = address
        self._token = token
        self.production: str | None = None
        self.retry_for = retry_for
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"GatewayClient({self.address!r})"

    @property
    def address(self) -> str:
        """``host:port`` of the gateway."""
        return self._address

    def close(self) -> None:
        """Do nothing: each operation has its own connection."""

    def submit_file(self, request: SubmitFile) -> Submitted:
        """Store the DAGs of a file, and create a run or the runs of a backfill."""
        return self._call("submit_file", request, Submitted)

    def get_run(self, dag_id: str, run_id: str) -> RunSnapshot:
        """Return a run with all its task instances."""
        return self._call("get_run", RunRef(dag_id, run_id), RunSnapshot)

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
        request = WatchRun(dag_id, run_id, after, until_ended, timeout)
        return self._call("watch_run", request, RunSnapshot, timeout=timeout + _GRACE)

    def list_runs(self, dag_id: str | None = None, *, limit: int = 100) -> list[RunRow]:
        """Return the latest runs, newest first."""
        return self._call("list_runs", ListRuns(dag_id, limit), RunList)["runs"]

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
        request = GetGridChanges(dag_id, run_id, runs, after, timeout)
        return self._call("get_grid_changes", request, GridChanges, timeout=timeout + _GRACE)

    def get_tasks_table(self, dag_id: str, run_id: str) -> Table:
        """Return a run's task instances, in an order in which they can run."""
        return self._call("get_tasks_table", RunRef(dag_id, run_id), Table)

    def get_runs_table(
        self, dag_id: str | None = None, *, state: str | None = None, limit: int | None = 100
    ) -> Table:
        """Return the latest runs, newest first; all of them if ``limit`` is None."""
        return self._call("get_runs_table", GetRunsTable(dag_id, state, limit), Table)

    def get_tries_table(self, dag_id: str, run_id: str) -> Table:
        """Return every try of a run's task instances."""
        return self._call("get_tries_table", RunRef(dag_id, run_id), Table)

    def cancel_run(self, dag_id: str, run_id: str | None = None) -> ActionResult:
        """End a run as Airflow's "mark failed" does; the DAG's latest if ``run_id`` is None."""
        return self._call("cancel_run", CancelRun(dag_id, run_id), ActionResult)

    def clear_tasks(self, request: ClearTasks) -> ActionResult:
        """Run tasks, or a whole run, again."""
        return self._call("clear_tasks", request, ActionResult)

    def mark_tasks(self, request: MarkTasks) -> ActionResult:
        """Set the state of tasks, or of a run."""
        return self._call("mark_tasks", request, ActionResult)

    def respond_to_task(self, request: RespondToTask) -> HumanAnswer:
        """Answer a task that waits for a person."""
        return self._call("respond_to_task", request, HumanAnswer)

    def get_log(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
    ) -> Log:
        """Return the log of a try; of the latest if ``try_number`` is None."""
        return self._call("get_log", TryRef(dag_id, run_id, task_id, map_index, try_number), Log)

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
        request = TailLog(dag_id, run_id, task_id, map_index, try_number, after)
        return self._call("tail_log", request, LogTail)

    def list_xcoms(self, dag_id: str, run_id: str) -> list[XCom]:
        """Return a run's XComs, values deserialised."""
        return self._call("list_xcoms", RunRef(dag_id, run_id), XComList)["xcoms"]

    def get_task(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
    ) -> TaskDetails:
        """Return a try in detail: rendered fields, XComs, error, end of the log."""
        return self._call("get_task", TryRef(dag_id, run_id, task_id, map_index, try_number), TaskDetails)

    def get_events_table(self, dag_id: str, run_id: str) -> Table:
        """Return the history of a run's workflow in Temporal."""
        return self._call("get_events_table", RunRef(dag_id, run_id), Table)

    def get_assets_table(self, dag_id: str, run_id: str) -> Table:
        """Return the asset events that created a run, and those that its tasks produced."""
        return self._call("get_assets_table", RunRef(dag_id, run_id), Table)

    def get_dags_table(self) -> Table:
        """Return the DAGs that Airflow knows."""
        return self._call("get_dags_table", None, Table)

    def get_pools_table(self) -> Table:
        """Return Airflow's pools and how their slots are used."""
        return self._call("get_pools_table", None, Table)

    def ping(self) -> Pong:
        """Return Airflow's version and the gateway's process id."""
        return self._call("ping", None, Pong)

    def check_file(self, path: str) -> FileCheck:
        """Parse and check a DAG file without storing anything; ``path`` is absolute."""
        return self._call("check_file", CheckFile(path), FileCheck)

    def reload_folders(self) -> None:
        """Have the worker process read again which folders are DAG bundles."""
        self._call("reload_folders", None, dict)

    def get_queues(self) -> Queues:
        """Return how many tasks wait in each queue, and which queues no worker serves."""
        return self._call("get_queues", None, Queues)

    def get_schedules(self) -> Schedules:
        """Return which DAGs Temporal schedules, and why it doesn't schedule others."""
        return self._call("get_schedules", None, Schedules)

    def _call(
        self,
        operation: Operation,
        request: DataclassInstance | None,
        shape: type[A],  # noqa: ARG002
        *,
        timeout: float | None = None,
    ) -> A:
        """Send a request and return its answer, which has the given shape.

        Parameters
        ----------
        operation
            Names the route.
        request
            Sent as JSON; an empty object if None.
        shape
            The typed dictionary that the gateway's route returns; it is of the same version as this client.
        timeout
            Seconds to wait for the answer; the client's if None.

        Raises
        ------
        ServiceUnavailableError
            Nothing answers.
        TemporalAirflowError
            The error that the operation reports, as an instance of its own class.
        """
        timeout = self.timeout if timeout is None else timeout
        payload = _payload(operation, {} if request is None else asdict(request))
        deadline = time.monotonic() + self.retry_for
        pause = 0.05
        while True:
            sent = False
            # A new one each time: http.client's connections can't be shared by threads.
            connection = http.client.HTTPConnection(self.address, timeout=timeout)
            try:
                # Only after this can the gateway have received the request: until then, any request may be repeated.
                connection.connect()
                sent = True
                return cast("A", self._exchange(connection, operation, payload))
            # TimeoutError and ConnectionError are OSErrors, so OSError has to come last.
            except TimeoutError:
                raise self._unavailable(f"did not answer `{operation}` in {timeout:.0f} s") from None
            except (ConnectionError, http.client.BadStatusLine, http.client.IncompleteRead) as error:
                if sent and operation in _NOT_REPEATABLE:
                    raise self._unavailable(
                        f"went away during `{operation}`", _NOT_REPEATABLE[operation]
                    ) from error
                if time.monotonic() + pause > deadline:
                    raise self._unavailable("can't be reached") from error
            except OSError as error:
                raise self._unavailable(f"can't be reached: {error}") from error
            finally:
                connection.close()
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _exchange(
        self, connection: http.client.HTTPConnection, operation: Operation, payload: bytes
    ) -> dict[str, object]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        connection.request("POST", f"/v1/{operation}", payload, headers)
        response = connection.getresponse()
        text = response.read()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if response.status == 200 and isinstance(answer, dict):
            return answer
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise from_dict(answer["error"])
        if response.status in (401, 403):
            raise self._unavailable("belongs to another stack: it refuses this stack's token")
        raise TemporalAirflowError(
            f"The worker at {self.address} answered `{operation}` with HTTP {response.status}.",
            hint="See worker.log in the logs of the stack's state folder.",
            address=self.address,
            answer=text[:500].decode("utf-8", "replace"),
        )

    def _unavailable(self, what: str, hint: str = "") -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"The worker at {self.address} {what}.",
            hint=hint
            or "See `temporal-airflow status`, and worker.log in the logs of the stack's state folder.",
            service="worker",
            address=self.address,
        )


def _payload(operation: Operation, request: Any) -> bytes:
    try:
        payload = json.dumps(request).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"`{operation}` can't take a value that JSON can't hold: {error}.") from None
    if len(payload) > MAX_REQUEST_BYTES:
        raise InvalidInputError(TOO_LARGE, hint=TOO_LARGE_HINT)
    return payload
