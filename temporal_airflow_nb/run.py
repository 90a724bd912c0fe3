"""A run of a DAG, seen through the stack that executes it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from temporal_airflow_nb.config import workflow_id
from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import RunTimeoutError, ServiceUnavailableError
from temporal_airflow_nb.task_log import TaskLog

if TYPE_CHECKING:
    import pandas as pd

Snapshot = Mapping[str, Any]

# A worker that died is back well before; after it, nobody is restarting it.
OUTAGE = 60.0
_LONG_POLL = 20.0


class Client(Protocol):
    """What a run needs of :class:`~temporal_airflow_nb.stack.gateway_client.GatewayClient`."""

    patience: float

    def call(self, op: str, *, timeout: float = ..., **body: Any) -> dict[str, Any]:
        """Call an operation of the gateway."""


class Run:
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

    @property
    def state(self) -> str:
        """``"queued"``, ``"running"``, ``"success"`` or ``"failed"``, as of now."""
        return self.snapshot()["state"]

    @property
    def tasks(self) -> pd.DataFrame:
        """The task instances as a frame; see :func:`temporal_airflow_nb.frames.tasks_frame`."""
        from temporal_airflow_nb.frames import tasks_frame

        return tasks_frame(self.snapshot())

    @property
    def xcoms(self) -> pd.DataFrame:
        """What the tasks returned and pushed, a frame; see :func:`temporal_airflow_nb.frames.xcoms_frame`."""
        from temporal_airflow_nb.frames import xcoms_frame

        return xcoms_frame(self._call("xcoms")["xcoms"])

    @property
    def links(self) -> dict[str, str]:
        """Addresses at which the run can be looked at, by name: ``{"temporal": "http://…"}``."""
        return dict(self.snapshot().get("links") or {})

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
        for listener in (*self._listeners,):
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

    def respond(
        self,
        task_id: str,
        options: str | Sequence[str],
        params_input: Mapping[str, Any] | None = None,
        *,
        map_index: int = -1,
    ) -> None:
        """Answer a task that waits for a person: an approval, a choice, an entry.

        Parameters
        ----------
        task_id
            The task.
        options
            The chosen option, or several where the task allows it; ``"Approve"`` or ``"Reject"`` for an approval.
        params_input
            What is entered into the task's form, by the names of its params.
        map_index
            Which instance of a mapped task.

        Raises
        ------
        RunNotFoundError
            The task doesn't ask anything, or not yet.
        InvalidInputError
            The task doesn't take this answer, or it has been answered already.

        Examples
        --------
        >>> run.respond("approve_budget", "Approve")                    # doctest: +SKIP
        """
        chosen = [options] if isinstance(options, str) else list(options)
        self._call(
            "respond",
            task_id=task_id,
            map_index=map_index,
            options=chosen,
            params_input=dict(params_input or {}),
        )

    def cancel(self) -> str:
        """Cancel the run, as Airflow's "mark failed" does; returns its state.

        Running tasks are killed, after their ``on_kill`` has run; waiting ones are skipped; what is finished
        stays. The run goes on while it has teardown tasks to run.
        """
        return self._call("cancel")["state"]

    def clear(
        self,
        task_ids: str | Iterable[str] | None = None,
        *,
        map_index: int | Iterable[int] | None = None,
        upstream: bool = False,
        downstream: bool = False,
        only_failed: bool = False,
        latest_version: bool | None = None,
    ) -> pd.DataFrame:
        """Run tasks again, or the whole run; :meth:`wait` then waits for the new end.

        Parameters
        ----------
        task_ids
            Which tasks; all of the run if None.
        map_index
            Which instances of a mapped task; all if None.
        upstream, downstream
            Whether to clear the tasks before and after these as well.
        only_failed
            Whether to leave alone what hasn't failed.
        latest_version
            Whether the run goes on with the DAG as it is now; if None, the DAG and Airflow's settings say so.

        Returns
        -------
        DataFrame
            The task instances that were cleared, as in :attr:`tasks`. One that was running is killed first,
            after its ``on_kill`` has run.

        Raises
        ------
        RunNotFoundError
            The run has no such task, or no such map index.

        Examples
        --------
        >>> run.clear("load", downstream=True)               # doctest: +SKIP
        >>> run.wait()                                       # doctest: +SKIP
        'success'
        """
        return self._act(
            "clear",
            **_chosen(task_ids, map_index, upstream, downstream),
            only_failed=only_failed,
            latest_version=latest_version,
        )

    def mark(
        self,
        state: str,
        task_ids: str | Iterable[str] | None = None,
        *,
        map_index: int | Iterable[int] | None = None,
        upstream: bool = False,
        downstream: bool = False,
    ) -> pd.DataFrame:
        """Mark tasks, or the whole run, as succeeded, failed or skipped, whatever they do now.

        Parameters
        ----------
        state
            ``"success"``, ``"failed"``, or, for tasks, ``"skipped"``.
        task_ids
            Which tasks; the run itself if None.
        map_index
            Which instances of a mapped task; all if None.
        upstream, downstream
            Whether to mark the tasks before and after these as well.

        Returns
        -------
        DataFrame
            The task instances that have changed, as in :attr:`tasks`: the marked ones, and those below them
            that may run now. One that was running is killed, after its ``on_kill`` has run.

        Raises
        ------
        RunNotFoundError
            The run has no such task, or no such map index.
        InvalidInputError
            There is no such state, or the tasks are in it already.
        """
        return self._act("mark", state=state, **_chosen(task_ids, map_index, upstream, downstream))

    def subscribe(self, listener: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Call ``listener`` with each snapshot that :meth:`watch` gets; returns how to stop."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def __repr__(self) -> str:
        state = (self._fresh() or {}).get("state", "state unknown")
        return f"<Run {self.dag_id} {self.run_id} {state}>"

    def _repr_html_(self) -> str | None:
        from temporal_airflow_nb.display import html, model

        snapshot = self._fresh()
        return html.render(model.grid(snapshot)) if snapshot else None

    def _fresh(self) -> Snapshot | None:
        """Return the present snapshot, else the last one known: a repr must neither wait nor raise."""
        try:
            return self._hasty.call("run", timeout=5, dag_id=self.dag_id, run_id=self.run_id)
        except Exception:
            return self._last

    def _call(self, op: str, **body: Any) -> dict[str, Any]:
        return self._client.call(op, dag_id=self.dag_id, run_id=self.run_id, **body)

    def _act(self, op: str, **body: Any) -> pd.DataFrame:
        from temporal_airflow_nb.frames import tasks_frame

        affected = {(task_id, map_index) for task_id, map_index in self._call(op, **body)["affected"]}
        snapshot = self.snapshot()
        tasks = [task for task in snapshot["tasks"] if (task["task_id"], task["map_index"]) in affected]
        return tasks_frame({**snapshot, "tasks": tasks})

    def _late(self, timeout: float | None) -> RunTimeoutError:
        return RunTimeoutError(
            f"{self.dag_id} {self.run_id} was still going on after {timeout:g} s.",
            hint="The run goes on: `run.wait()` waits for it, `run.cancel()` ends it.",
            dag_id=self.dag_id,
            run_id=self.run_id,
        )


def _chosen(
    task_ids: str | Iterable[str] | None,
    map_index: int | Iterable[int] | None,
    upstream: bool,
    downstream: bool,
) -> dict[str, Any]:
    """Return which tasks are meant, as the gateway takes it."""
    if task_ids is None and (map_index is not None or upstream or downstream):
        raise TypeError("map_index, upstream and downstream need task_ids")
    return {
        "task_ids": [task_ids] if isinstance(task_ids, str) else task_ids and list(task_ids),
        "map_indexes": [map_index] if isinstance(map_index, int) else map_index and list(map_index),
        "upstream": upstream,
        "downstream": downstream,
    }
