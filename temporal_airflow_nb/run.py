"""A run of a DAG, seen through the stack that executes it."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from temporal_airflow_nb.config import workflow_id
from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import RunTimeoutError, ServiceUnavailableError, interruptible
from temporal_airflow_nb.run_display import RunDisplay
from temporal_airflow_nb.run_frames import RunFrames
from temporal_airflow_nb.run_user_actions import UserActions
from temporal_airflow_nb.task_log import TaskLog

if TYPE_CHECKING:
    from temporal_airflow_nb.aio import Twins

Snapshot = Mapping[str, Any]

# A worker that died is back well before; after it, nobody is restarting it.
OUTAGE = 60.0
_LONG_POLL = 20.0


class Client(Protocol):
    """What a run needs of :class:`~temporal_airflow_nb.stack.gateway_client.GatewayClient`."""

    patience: float
    address: str

    def call(self, op: str, *, timeout: float = ..., **body: Any) -> dict[str, Any]:
        """Call an operation of the gateway."""


class Run(RunFrames, RunDisplay, UserActions):
    """A run of a DAG.

    Runs are made by ``LocalStack.run`` and by the ``%%temporal_dag`` magic.

    Parameters
    ----------
    client
        The stack's gateway.
    dag_id, run_id
        Which run.

    Attributes
    ----------
    dag_id, run_id : str
        As in Airflow.
    workflow_id : str
        Id of the workflow that executes the run in Temporal.

    Examples
    --------
    >>> import temporal_airflow_nb as ta                            # doctest: +SKIP
    >>> with ta.LocalStack() as stack:                              # doctest: +SKIP
    ...     run = stack.run("dags/etl.py")
    ...     run.wait(timeout=60)
    'success'
    """

    def __init__(self, client: Client, dag_id: str, run_id: str) -> None:
        self.dag_id = dag_id
        self.run_id = run_id
        self.workflow_id = workflow_id(dag_id, run_id)
        self._client = client
        self._hasty = copy.copy(client)
        self._hasty.patience = 0.0
        self._last: Snapshot | None = None
        self._listeners: list[Callable[[Snapshot], None]] = []
        self._awaiting_end: list[Callable[[Snapshot], None]] = []

    @property
    def state(self) -> str:
        """``"queued"``, ``"running"``, ``"success"`` or ``"failed"``, as of now."""
        return self.snapshot()["state"]

    @property
    def links(self) -> dict[str, str]:
        """Addresses at which the run can be looked at, by name: ``{"temporal": "http://…"}``."""
        return dict(self.snapshot().get("links") or {})

    @property
    def aio(self) -> Twins:
        """Methods and properties as coroutine functions: ``await run.aio.wait()``, ``await run.aio.tasks()``."""
        from temporal_airflow_nb.aio import Twins

        return Twins(self)

    def wait(self, timeout: float | None = None) -> str:
        """Wait for the run to end.

        Parameters
        ----------
        timeout
            Seconds to wait at most; forever if None.

        Returns
        -------
        str
            ``"success"`` or ``"failed"``.

        Raises
        ------
        RunTimeoutError
            The run hadn't ended in time. It goes on.
        ServiceUnavailableError
            The stack has been out of reach for a minute.
        """
        if timeout is not None and not isinstance(timeout, (int, float)):
            raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
        with interruptible("The run goes on: `run.wait()` waits for it, `run.cancel()` ends it."):
            return self._wait(timeout)

    def _wait(self, timeout: float | None) -> str:
        deadline = None if timeout is None else time.monotonic() + timeout
        version: str | None = None
        lost: float | None = None
        while True:
            left = _LONG_POLL if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                # Who listens wants to hear of every change; nobody else needs more than the end.
                snapshot = self.watch(version, timeout=min(left, _LONG_POLL), until_ended=not self._listeners)
            except ServiceUnavailableError:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > OUTAGE:
                    raise
                time.sleep(min(left, 0.5))
            else:
                lost, version = None, snapshot["version"]
                if snapshot["state"] in FINAL_RUN_STATES:
                    if snapshot["state"] == "failed" and "ipykernel" in sys.modules:
                        self._tell_failures()
                    return snapshot["state"]
            if deadline is not None and time.monotonic() >= deadline:
                raise self._late(timeout)

    def watch(
        self, after: str | None = None, *, timeout: float = _LONG_POLL, until_ended: bool = False
    ) -> Snapshot:
        """Wait for the run to change, or to end.

        Parameters
        ----------
        after
            The ``version`` of the snapshot that is known already.
        timeout
            Seconds after which the snapshot is returned even if nothing changed.
        until_ended
            Whether to wait for the run's end instead of its next change.

        Returns
        -------
        Mapping
            The snapshot.

        Raises
        ------
        ServiceUnavailableError
            The stack can't be reached; unlike other methods this one doesn't try again.
        """
        snapshot = self._hasty.call(
            "watch",
            timeout=timeout,
            dag_id=self.dag_id,
            run_id=self.run_id,
            after=after,
            until_ended=until_ended,
        )
        self._last = snapshot
        ended = snapshot["state"] in FINAL_RUN_STATES
        for listener in (*self._listeners, *(self._awaiting_end if ended else ())):
            listener(snapshot)
        return snapshot

    def snapshot(self) -> Snapshot:
        """Return everything that the stack tells of the run and its tasks, as plain data.

        Of a run that has ended, the last snapshot is returned when the stack is gone.
        """
        ended = self._last is not None and self._last["state"] in FINAL_RUN_STATES
        client = self._hasty if ended else self._client
        try:
            self._last = client.call("run", dag_id=self.dag_id, run_id=self.run_id)
        except ServiceUnavailableError:
            if not ended:
                raise
        assert self._last is not None
        return self._last

    def logs(self, task_id: str, map_index: int = -1, try_number: int | None = None) -> TaskLog:
        """Return the log of one try of a task.

        Parameters
        ----------
        task_id
            The task.
        map_index
            Which instance of a mapped task.
        try_number
            Which try, counted from 1; the latest if None.

        Returns
        -------
        TaskLog
            A string, with ``lines`` and ``try_number``.

        Raises
        ------
        RunNotFoundError
            The run has no such task, or no such try.
        """
        answer = self._call("logs", task_id=task_id, map_index=map_index, try_number=try_number)
        return TaskLog(answer["lines"], answer["try_number"])

    def subscribe(
        self, listener: Callable[[Snapshot], None], *, every_change: bool = True
    ) -> Callable[[], None]:
        """Call ``listener`` with each snapshot that :meth:`watch` gets, or with ends alone; returns how to stop."""
        listeners = self._listeners if every_change else self._awaiting_end
        listeners.append(listener)

        def unsubscribe() -> None:
            if listener in listeners:
                listeners.remove(listener)

        return unsubscribe

    @property
    def client(self) -> Client:
        """The door to the stack."""
        return self._client

    def __repr__(self) -> str:
        state = (self._fresh() or {}).get("state", "state unknown")
        return f"<Run {self.dag_id} {self.run_id} {state}>"

    def _fresh(self) -> Snapshot | None:
        """Return the present snapshot, else the last one known: a repr must neither wait nor raise."""
        try:
            return self._hasty.call("run", timeout=5, dag_id=self.dag_id, run_id=self.run_id)
        except Exception:
            return self._last

    def _call(self, op: str, **body: Any) -> dict[str, Any]:
        return self._client.call(op, dag_id=self.dag_id, run_id=self.run_id, **body)

    def _late(self, timeout: float | None) -> RunTimeoutError:
        return RunTimeoutError(
            f"{self.dag_id} {self.run_id} was still going on after {timeout:g} s.",
            hint="The run goes on: `run.wait()` waits for it, `run.cancel()` ends it.",
            dag_id=self.dag_id,
            run_id=self.run_id,
        )
