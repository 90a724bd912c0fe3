"""The protocol of a client: a method for each operation of a stack.

A notebook, the command line and the live grid ask a stack through a client, from several threads. Clients inherit
from :class:`StackClient` and override the operations that their backend can carry out. Every other operation raises an
error with the text of :mod:`temporal_airflow_nb.client.capabilities`, and sends no request.
"""

# ruff: noqa: ARG002
# The operations below don't use their arguments; the clients that override them do.

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn, Protocol

from temporal_airflow_nb.errors import UnavailableHereError
from temporal_airflow_nb.messages.requests import GRID_RUNS

if TYPE_CHECKING:
    from typing_extensions import Self

    from temporal_airflow_nb.client.capabilities import Operation, Refusal
    from temporal_airflow_nb.messages.files import FileCheck, Submitted
    from temporal_airflow_nb.messages.grid import GridChanges
    from temporal_airflow_nb.messages.requests import (
        ClearTasks,
        JsonObject,
        MarkTasks,
        RespondToTask,
        SubmitFile,
    )
    from temporal_airflow_nb.messages.runs import ActionResult, HumanAnswer, RunRow, RunSnapshot, Triggered
    from temporal_airflow_nb.messages.services import Pong, Queues, Schedules
    from temporal_airflow_nb.messages.tables import Table
    from temporal_airflow_nb.messages.tasks import Log, LogTail, TaskDetails, XCom


class StackClient(Protocol):
    """Carries out the operations of a stack. Safe to use from several threads.

    Attributes
    ----------
    address : str
        Of the service that is asked, for messages.
    production : str or None
        What the client is connected to, if that is production; None otherwise.
    retry_for : float
        Seconds for which an unreachable service is tried again.
    timeout : float
        Seconds to wait for an answer.
    refusals : mapping
        The operations that this client can't carry out, and why.

    Raises
    ------
    ServiceUnavailableError
        From any operation: the service can't be reached or doesn't answer.
    UnavailableHereError
        From the operations in ``refusals``.
    DagNotFoundError, RunNotFoundError
        From operations on a DAG, a run or a task: it doesn't exist.
    """

    production: str | None
    retry_for: float
    timeout: float
    refusals: Mapping[Operation, Refusal]

    @property
    def address(self) -> str:
        """Address of the service that is asked, for messages."""
        ...

    def close(self) -> None:
        """Close what the client keeps open; the next operation opens it again."""

    def with_limits(self, *, timeout: float | None = None, retry_for: float | None = None) -> Self:
        """Return a copy with other limits. Both share connections, caches and locks.

        Parameters
        ----------
        timeout, retry_for
            Seconds, as the attributes; as in this client if None.
        """
        client = copy.copy(self)
        client.timeout = self.timeout if timeout is None else timeout
        client.retry_for = self.retry_for if retry_for is None else retry_for
        return client

    def without_retries(self, *, timeout: float | None = None) -> Self:
        """Return a copy that asks once, and waits for an answer at most ``timeout`` seconds."""
        return self.with_limits(timeout=timeout, retry_for=0.0)

    def submit_file(self, request: SubmitFile) -> Submitted:
        """Store the DAGs of a file, and create a run or the runs of a backfill."""
        _refuse(self, "submit_file")

    def trigger_dag(
        self, dag_id: str, *, conf: JsonObject | None = None, run_id: str | None = None
    ) -> Triggered:
        """Create a run of a DAG that Airflow knows already."""
        _refuse(self, "trigger_dag")

    def get_run(self, dag_id: str, run_id: str) -> RunSnapshot:
        """Return a run with all its task instances."""
        _refuse(self, "get_run")

    def watch_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        after: str | None = None,
        until_ended: bool = False,
        timeout: float = 30.0,
    ) -> RunSnapshot:
        """Wait for a run to change, or to end; return it.

        Parameters
        ----------
        dag_id, run_id
            The run.
        after
            The ``version`` of the snapshot that the caller has; None for any.
        until_ended
            Whether to wait for the end of the run rather than for its next change.
        timeout
            Seconds after which the run is returned in any case.
        """
        _refuse(self, "watch_run")

    def list_runs(self, dag_id: str | None = None, *, limit: int = 100) -> list[RunRow]:
        """Return the latest runs, newest first."""
        _refuse(self, "list_runs")

    def get_grid_changes(
        self,
        dag_id: str,
        run_id: str,
        *,
        after: str | None = None,
        runs: int = GRID_RUNS,
        timeout: float = 30.0,
    ) -> GridChanges:
        """Wait for a DAG's grid to change; return the changes.

        Parameters
        ----------
        dag_id, run_id
            The run whose task instances are asked for.
        after
            The ``cursor`` of the answer that the caller has; None for the whole grid.
        runs
            How many of the DAG's latest runs to include.
        timeout
            Seconds after which an answer without changes is returned.
        """
        _refuse(self, "get_grid_changes")

    def get_tasks_table(self, dag_id: str, run_id: str) -> Table:
        """Return a run's task instances, in an order in which they can run."""
        _refuse(self, "get_tasks_table")

    def get_runs_table(
        self, dag_id: str | None = None, *, state: str | None = None, limit: int | None = 100
    ) -> Table:
        """Return the latest runs, newest first; all of them if ``limit`` is None."""
        _refuse(self, "get_runs_table")

    def get_tries_table(self, dag_id: str, run_id: str) -> Table:
        """Return every try of a run's task instances."""
        _refuse(self, "get_tries_table")

    def cancel_run(self, dag_id: str, run_id: str | None = None) -> ActionResult:
        """End a run as Airflow's "mark failed" does; the DAG's latest if ``run_id`` is None."""
        _refuse(self, "cancel_run")

    def clear_tasks(self, request: ClearTasks) -> ActionResult:
        """Run tasks, or a whole run, again."""
        _refuse(self, "clear_tasks")

    def mark_tasks(self, request: MarkTasks) -> ActionResult:
        """Set the state of tasks, or of a run."""
        _refuse(self, "mark_tasks")

    def respond_to_task(self, request: RespondToTask) -> HumanAnswer:
        """Answer a task that waits for a person."""
        _refuse(self, "respond_to_task")

    def get_log(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
    ) -> Log:
        """Return the log of a try; of the latest if ``try_number`` is None."""
        _refuse(self, "get_log")

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
        _refuse(self, "tail_log")

    def list_xcoms(self, dag_id: str, run_id: str) -> list[XCom]:
        """Return a run's XComs, values deserialised."""
        _refuse(self, "list_xcoms")

    def get_task(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
    ) -> TaskDetails:
        """Return a try in detail: rendered fields, XComs, error, end of the log."""
        _refuse(self, "get_task")

    def get_events_table(self, dag_id: str, run_id: str) -> Table:
        """Return the history of a run's workflow in Temporal."""
        _refuse(self, "get_events_table")

    def get_assets_table(self, dag_id: str, run_id: str) -> Table:
        """Return the asset events that created a run, and those that its tasks produced."""
        _refuse(self, "get_assets_table")

    def get_dags_table(self) -> Table:
        """Return the DAGs that Airflow knows."""
        _refuse(self, "get_dags_table")

    def get_pools_table(self) -> Table:
        """Return Airflow's pools and how their slots are used."""
        _refuse(self, "get_pools_table")

    def ping(self) -> Pong:
        """Return Airflow's version; shows that the service answers."""
        _refuse(self, "ping")

    def check_file(self, path: str) -> FileCheck:
        """Parse and check a DAG file without storing anything; ``path`` is absolute."""
        _refuse(self, "check_file")

    def reload_folders(self) -> None:
        """Have the worker process read again which folders are DAG bundles."""
        _refuse(self, "reload_folders")

    def get_queues(self) -> Queues:
        """Return how many tasks wait in each queue, and which queues no worker serves."""
        _refuse(self, "get_queues")

    def get_schedules(self) -> Schedules:
        """Return which DAGs Temporal schedules, and why it doesn't schedule others."""
        _refuse(self, "get_schedules")


def _refuse(client: StackClient, operation: Operation) -> NoReturn:
    refusal = client.refusals[operation]
    raise UnavailableHereError(refusal.reason, hint=refusal.hint, op=operation)
