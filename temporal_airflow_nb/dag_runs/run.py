"""A run of a DAG, through the client of the stack that executes it.

Runs in the user's process. Methods ask the stack each time; a run object keeps only the last snapshot, for when the
stack is gone. Several threads may use a run without a lock: a snapshot is replaced as a whole and never changed, and
:meth:`Run.watch` copies the lists of listeners before it calls them, in its caller's thread.
"""

from __future__ import annotations

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
from temporal_airflow_nb.messages.requests import ClearTasks, MarkTasks, RespondToTask

if TYPE_CHECKING:
    import pandas as pd

    from temporal_airflow_nb.client.protocol import StackClient
    from temporal_airflow_nb.display.failures import Failures
    from temporal_airflow_nb.live_grid.widget import RunWidget
    from temporal_airflow_nb.messages.runs import RunSnapshot

# Seconds for which `wait` goes on although the stack can't be reached. The stack manager restarts a worker process well
# within this time.
OUTAGE = 60.0
# Seconds after which the stack answers although nothing has changed.
_LONG_POLL = 20.0


class Run:
    """A run of a DAG.

    Runs are made by ``LocalStack.run`` and by the ``%%temporal_dag`` magic.

    Parameters
    ----------
    client
        The client of the run's stack.
    dag_id, run_id
        The run.

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

    def __init__(self, client: StackClient, dag_id: str, run_id: str) -> None:
        self.dag_id = dag_id
        self.run_id = run_id
        self.workflow_id = workflow_id(dag_id, run_id)
        self._client = client
        self._last_snapshot: RunSnapshot | None = None
        # Listeners of every change, and those of the run's end only.
        self._listeners: list[Callable[[RunSnapshot], None]] = []
        self._awaiting_end: list[Callable[[RunSnapshot], None]] = []

    @property
    def state(self) -> str:
        """``"queued"``, ``"running"``, ``"success"`` or ``"failed"``, as of now."""
        return self.snapshot()["state"]

    @property
    def links(self) -> dict[str, str]:
        """Addresses of the run in UIs, by the UI's name: ``{"temporal": "http://…"}``."""
        return dict(self.snapshot()["links"])

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
            The run hadn't ended in time. It continues.
        ServiceUnavailableError
            The stack couldn't be reached for a minute.
        """
        if timeout is not None and not isinstance(timeout, (int, float)):
            raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
        with interruptible("The run continues: `run.wait()` waits for it, `run.cancel()` ends it."):
            return self._wait(timeout)

    def _wait(self, timeout: float | None) -> str:
        deadline = None if timeout is None else time.monotonic() + timeout
        version: str | None = None
        lost: float | None = None
        while True:
            left = _LONG_POLL if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                # Listeners get every change; without listeners, only the end is needed.
                snapshot = self.watch(version, timeout=min(left, _LONG_POLL), until_ended=not self._listeners)
            except ServiceUnavailableError:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > OUTAGE:
                    raise
                # The client itself doesn't try again, so that an interrupt or the deadline ends this loop soon.
                time.sleep(min(left, 0.5))
            else:
                lost, version = None, snapshot["version"]
                if snapshot["state"] in FINAL_RUN_STATES:
                    # Only in a notebook: a script prints what it wants.
                    if snapshot["state"] == "failed" and "ipykernel" in sys.modules:
                        display.show_failures(self)
                    return snapshot["state"]
            if deadline is not None and time.monotonic() >= deadline:
                raise self._timeout_error(timeout)

    def watch(
        self, after: str | None = None, *, timeout: float = _LONG_POLL, until_ended: bool = False
    ) -> RunSnapshot:
        """Wait for the run to change, or to end.

        Parameters
        ----------
        after
            The ``version`` of the snapshot that the caller has.
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
            The stack can't be reached. Unlike other methods, this one doesn't try again.
        """
        snapshot = self._client.without_retries().watch_run(
            self.dag_id, self.run_id, after=after, until_ended=until_ended, timeout=timeout
        )
        self._last_snapshot = snapshot
        ended = snapshot["state"] in FINAL_RUN_STATES
        # Copies: a listener may unsubscribe while it is called.
        for listener in (*self._listeners, *(self._awaiting_end if ended else ())):
            listener(snapshot)
        return snapshot

    def snapshot(self) -> RunSnapshot:
        """Return the run and its task instances, as plain data.

        If the stack is gone, the last snapshot of a run that had ended is returned.
        """
        ended = self._last_snapshot is not None and self._last_snapshot["state"] in FINAL_RUN_STATES
        client = self._client.without_retries() if ended else self._client
        try:
            self._last_snapshot = client.get_run(self.dag_id, self.run_id)
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
        log = self._client.get_log(self.dag_id, self.run_id, task_id, map_index, try_number)
        return TaskLog(log["lines"], log["try_number"])

    def subscribe(
        self, listener: Callable[[RunSnapshot], None], *, every_change: bool = True
    ) -> Callable[[], None]:
        """Call a function with each snapshot that :meth:`watch` returns.

        Parameters
        ----------
        listener
            Called in the thread that watches.
        every_change
            Whether to call it at every change; else only with the snapshot of the run's end.

        Returns
        -------
        callable
            Ends the subscription.
        """
        listeners = self._listeners if every_change else self._awaiting_end
        listeners.append(listener)

        def unsubscribe() -> None:
            if listener in listeners:
                listeners.remove(listener)

        return unsubscribe

    @property
    def client(self) -> StackClient:
        """The client of the run's stack."""
        return self._client

    @property
    def tasks(self) -> pd.DataFrame:
        """The task instances as a frame; see :func:`temporal_airflow_nb.frames.tasks_frame`.

        If the stack is gone, those of the last snapshot of a run that had ended.
        """
        return self.frame("tasks")

    @property
    def tries(self) -> pd.DataFrame:
        """All tries of all tasks, a frame; see :func:`temporal_airflow_nb.frames.tries_frame`."""
        return self.frame("tries")

    @property
    def xcoms(self) -> pd.DataFrame:
        """The values that tasks returned and pushed, a frame; see :func:`temporal_airflow_nb.frames.xcoms_frame`."""
        return self.frame("xcoms")

    @property
    def events(self) -> pd.DataFrame:
        """The history of the run's workflow, a frame; see :func:`temporal_airflow_nb.frames.events_frame`.

        Empty if Temporal has none: the run is about to start, Airflow's own scheduler executed it, or the
        namespace no longer keeps its history.
        """
        return self.frame("events")

    @property
    def assets(self) -> pd.DataFrame:
        """The asset events of the run, a frame; see :func:`temporal_airflow_nb.frames.assets_frame`."""
        return self.frame("assets")

    def frame(self, name: str, *, dtype_backend: str | None = None) -> pd.DataFrame:
        """Return one of the run's frames, optionally with Arrow columns.

        Parameters
        ----------
        name
            ``"tasks"``, ``"tries"``, ``"xcoms"``, ``"events"`` or ``"assets"``.
        dtype_backend
            ``"pyarrow"`` for columns that Arrow holds; pandas' own types if None, as in the attributes of these names.

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
        """The failed task instances, the first ten with exception, code and the end of the log.

        Examples
        --------
        >>> run.failures                                                # doctest: +SKIP
        ✗ parse failed after 0.01 s
            ValueError: not a date
            In [7], line 8, in parse
        """
        return display.failures(self)

    def show(self, view: str = "grid") -> None:
        """Show the run and its progress in the output of this cell; returns at once.

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
        """Return the run's live grid as a widget, to place among others or in other notebooks.

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
            Values for the task's form, by the names of its params.
        map_index
            Which instance of a mapped task.

        Raises
        ------
        RunNotFoundError
            The task doesn't ask for an answer, or not yet.
        InvalidInputError
            The task doesn't take this answer, or has been answered already.

        Examples
        --------
        >>> run.respond("approve_budget", "Approve")                    # doctest: +SKIP
        """
        chosen = [options] if isinstance(options, str) else list(options)
        self._client.respond_to_task(
            RespondToTask(self.dag_id, self.run_id, task_id, chosen, map_index, dict(params_input or {}))
        )

    def cancel(self) -> str:
        """Cancel the run, as Airflow's "mark failed" does; returns its state.

        Running tasks are killed, after their ``on_kill`` has run; waiting tasks are skipped; finished tasks stay as
        they are. The run continues while it has teardown tasks to run.
        """
        return self._client.cancel_run(self.dag_id, self.run_id)["state"]

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
            The tasks; all of the run if None.
        map_index
            Indexes of instances of a mapped task; all if None.
        upstream, downstream
            Whether to clear the tasks before and after these as well.
        only_failed
            Whether to clear failed task instances only.
        latest_version
            Whether the run continues with the latest version of the DAG; if None, Airflow's settings decide.

        Returns
        -------
        DataFrame
            The task instances that were cleared, as in :attr:`tasks`. A running task is killed first, after its
            ``on_kill`` has run.

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
        request = ClearTasks(
            self.dag_id,
            self.run_id,
            only_failed=only_failed,
            latest_version=latest_version,
            **actions.select_tasks(task_ids, map_index, upstream, downstream),
        )
        return actions.affected_frame(self, self._client.clear_tasks(request))

    def mark(
        self,
        state: str,
        task_ids: str | Iterable[str] | None = None,
        *,
        map_index: int | Iterable[int] | None = None,
        upstream: bool = False,
        downstream: bool = False,
    ) -> pd.DataFrame:
        """Set the state of tasks, or of the whole run, to success, failed or skipped.

        Parameters
        ----------
        state
            ``"success"``, ``"failed"``, or, for tasks, ``"skipped"``.
        task_ids
            The tasks; the run itself if None.
        map_index
            Indexes of instances of a mapped task; all if None.
        upstream, downstream
            Whether to mark the tasks before and after these as well.

        Returns
        -------
        DataFrame
            The task instances that have changed, as in :attr:`tasks`: those that were marked, and those below them
            that may run now. A running task is killed, after its ``on_kill`` has run.

        Raises
        ------
        RunNotFoundError
            The run has no such task, or no such map index.
        InvalidInputError
            There is no such state, or the tasks are in it already.
        """
        request = MarkTasks(
            self.dag_id,
            self.run_id,
            state,
            **actions.select_tasks(task_ids, map_index, upstream, downstream),
        )
        return actions.affected_frame(self, self._client.mark_tasks(request))

    def __repr__(self) -> str:
        known = self._last_known()
        state = "state unknown" if known is None else known["state"]
        return f"<Run {self.dag_id} {self.run_id} {state}>"

    def _ipython_display_(self) -> None:
        """Show an unfinished run live."""
        if not display.is_live(self):
            # IPython then calls `_repr_mimebundle_`, which returns the static picture.
            raise NotImplementedError
        self.show()

    def _display_(self) -> RunWidget:
        """Return the widget that marimo shows for a run."""
        return self.widget()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return display.mimebundle(self)

    def _repr_html_(self) -> str | None:
        return display.mimebundle(self).get("text/html")

    def _last_known(self) -> RunSnapshot | None:
        """Return the present snapshot; if it doesn't arrive within 5 s, the last known one."""
        try:
            return self._client.without_retries(timeout=5).get_run(self.dag_id, self.run_id)
        except Exception:
            # A `repr` must not raise, whatever is wrong with the stack: debuggers and tracebacks call it, too.
            return self._last_snapshot

    def _timeout_error(self, timeout: float | None) -> RunTimeoutError:
        return RunTimeoutError(
            f"Run {self.run_id} of DAG {self.dag_id} hadn't ended after {timeout:g} s.",
            hint="The run continues: `run.wait()` waits for it, `run.cancel()` ends it.",
            dag_id=self.dag_id,
            run_id=self.run_id,
        )
