"""A run of a DAG, seen through the stack that executes it."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb._async import AsyncMethods
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.dag_runs import actions, display, frames
from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import RunTimeoutError, ServiceUnavailableError, interruptible
from temporal_airflow_nb.logs.task_log import TaskLog

if TYPE_CHECKING:
    import pandas as pd

    from temporal_airflow_nb.client.protocol import Client, Snapshot
    from temporal_airflow_nb.display.failures import Failures
    from temporal_airflow_nb.live_grid.widget import RunWidget

# A worker that died is back well before; after it, nobody is restarting it.
OUTAGE = 60.0
_LONG_POLL = 20.0


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
        self._impatient_client = copy.copy(client)
        self._impatient_client.patience = 0.0
        self._last_snapshot: Snapshot | None = None
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
    def aio(self) -> AsyncMethods:
        """Methods and properties as coroutine functions: ``await run.aio.wait()``, ``await run.aio.tasks()``."""
        return AsyncMethods(self)

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
                        display.show_failures(self)
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
        snapshot = self._impatient_client.call(
            "watch",
            timeout=timeout,
            dag_id=self.dag_id,
            run_id=self.run_id,
            after=after,
            until_ended=until_ended,
        )
        self._last_snapshot = snapshot
        ended = snapshot["state"] in FINAL_RUN_STATES
        for listener in (*self._listeners, *(self._awaiting_end if ended else ())):
            listener(snapshot)
        return snapshot

    def snapshot(self) -> Snapshot:
        """Return everything that the stack tells of the run and its tasks, as plain data.

        Of a run that has ended, the last snapshot is returned when the stack is gone.
        """
        ended = self._last_snapshot is not None and self._last_snapshot["state"] in FINAL_RUN_STATES
        client = self._impatient_client if ended else self._client
        try:
            self._last_snapshot = client.call("run", dag_id=self.dag_id, run_id=self.run_id)
        except ServiceUnavailableError:
            if not ended:
                raise
        assert self._last_snapshot is not None
        return self._last_snapshot

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

    @property
    def tasks(self) -> pd.DataFrame:
        """The task instances as a frame; see :func:`temporal_airflow_nb.frames.tasks_frame`.

        Of a run that has ended, the last known ones when the stack is gone.
        """
        return self.frame("tasks")

    @property
    def tries(self) -> pd.DataFrame:
        """All tries of all tasks, a frame; see :func:`temporal_airflow_nb.frames.tries_frame`."""
        return self.frame("tries")

    @property
    def xcoms(self) -> pd.DataFrame:
        """What the tasks returned and pushed, a frame; see :func:`temporal_airflow_nb.frames.xcoms_frame`."""
        return self.frame("xcoms")

    @property
    def events(self) -> pd.DataFrame:
        """The history of the run's workflow, a frame; see :func:`temporal_airflow_nb.frames.events_frame`.

        Empty where Temporal has none: the run is about to start, Airflow's own scheduler executed it, or it is
        older than what the namespace keeps.
        """
        return self.frame("events")

    @property
    def assets(self) -> pd.DataFrame:
        """The asset events of the run, a frame; see :func:`temporal_airflow_nb.frames.assets_frame`."""
        return self.frame("assets")

    def frame(self, name: str, *, dtype_backend: str | None = None) -> pd.DataFrame:
        """Return one of the run's frames with columns of a certain kind.

        Parameters
        ----------
        name
            ``"tasks"``, ``"tries"``, ``"xcoms"``, ``"events"`` or ``"assets"``.
        dtype_backend
            ``"pyarrow"`` for columns that Arrow holds; pandas' own if None, as in the attributes of these names.

        Raises
        ------
        InvalidInputError
            There is no such frame or ``dtype_backend``, or pyarrow isn't installed.

        Examples
        --------
        >>> run.frame("tasks", dtype_backend="pyarrow").dtypes["duration"]      # doctest: +SKIP
        duration[us][pyarrow]
        """
        return frames.frame(self, name, dtype_backend=dtype_backend)

    def plot(self, library: str | None = None) -> Any:
        """Return the Gantt chart of the run: when each try was queued and when it ran.

        Parameters
        ----------
        library
            ``"matplotlib"`` for a chart of that library; an SVG if None.

        Returns
        -------
        Picture or matplotlib.axes.Axes
            A notebook shows both.

        Raises
        ------
        InvalidInputError
            There is no such library, or it isn't installed.

        Examples
        --------
        >>> run.plot().save("gantt.svg")                            # doctest: +SKIP
        """
        return frames.plot(self, library)

    @property
    def failures(self) -> Failures:
        """The task instances that failed; the first ten with exception, the user's own lines and the log's end.

        Examples
        --------
        >>> run.failures                                                # doctest: +SKIP
        ✗ parse failed after 0.01 s
            ValueError: not a date
            In [7], line 8, in parse
        """
        return display.failures(self)

    def show(self, view: str = "grid") -> None:
        """Show the run in the output of this cell, and its progress from then on; returns at once.

        Parameters
        ----------
        view
            What to show first: ``"grid"``, ``"graph"`` or ``"gantt"``.

        Raises
        ------
        ServiceUnavailableError
            The stack can't be reached.
        """
        display.show(self, view)

    def widget(self, view: str = "grid") -> RunWidget:
        """Return the run's live grid as a widget, to be placed among others or in another kind of notebook.

        Parameters
        ----------
        view
            What to show first: ``"grid"``, ``"graph"`` or ``"gantt"``.

        Raises
        ------
        ServiceUnavailableError
            The stack can't be reached.

        Examples
        --------
        >>> ipywidgets.VBox([first.widget(), second.widget("gantt")])   # doctest: +SKIP
        """
        return display.widget(self, view)

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
        return actions.apply(
            self,
            "clear",
            **actions.selection(task_ids, map_index, upstream, downstream),
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
        return actions.apply(
            self, "mark", state=state, **actions.selection(task_ids, map_index, upstream, downstream)
        )

    def __repr__(self) -> str:
        state = (self._last_known() or {}).get("state", "state unknown")
        return f"<Run {self.dag_id} {self.run_id} {state}>"

    def _ipython_display_(self) -> None:
        """Show a run that goes on live; IPython then asks for the static picture of one that has ended."""
        if not display.is_live(self):
            raise NotImplementedError
        self.show()

    def _display_(self) -> RunWidget:
        """Return what marimo shows of a run."""
        return self.widget()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return display.mimebundle(self)

    def _repr_html_(self) -> str | None:
        return display.mimebundle(self).get("text/html")

    def _last_known(self) -> Snapshot | None:
        """Return the present snapshot, else the last one known: a repr must neither wait nor raise."""
        try:
            return self._impatient_client.call("run", timeout=5, dag_id=self.dag_id, run_id=self.run_id)
        except Exception:
            return self._last_snapshot

    def _call(self, op: str, **body: Any) -> dict[str, Any]:
        """Call an operation of the client on this run."""
        return self._client.call(op, dag_id=self.dag_id, run_id=self.run_id, **body)

    def _late(self, timeout: float | None) -> RunTimeoutError:
        return RunTimeoutError(
            f"{self.dag_id} {self.run_id} was still going on after {timeout:g} s.",
            hint="The run goes on: `run.wait()` waits for it, `run.cancel()` ends it.",
            dag_id=self.dag_id,
            run_id=self.run_id,
        )
