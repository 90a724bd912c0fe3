"""Show a run in the output of a cell, kept up to date by a thread.

Threads of the kernel that use one :class:`LiveGrid`:

- The thread that executes cells calls :meth:`LiveGrid.show_progress`, :meth:`LiveGrid.follow` and :func:`close_all`.
  If it waits for the run, it also calls ``_on_run_end``.
- ``temporal-airflow-{dag_id}`` (``_keep_following``) polls the stack, sends changes to the page, publishes the output.
- ``temporal-airflow-progress`` publishes the seconds of a :meth:`LiveGrid.show_progress` block and ends with it.
- One ``temporal-airflow-request`` for each request of the page runs its handler (``page_requests``).
- The thread or subshell that receives the page's messages reads :meth:`LiveGrid.full_state`.

Locks:

- ``_details_lock``: only one thread at a time asks the stack why tasks failed. It is held while the stack answers.
- ``_publish_lock``: publishing the output, and the fields ``_published`` and ``_thread_number``. Closing takes it, too,
  so that nothing is published after the last output. It is never held while the stack answers.
- ``poller.lock``: the state of the grid.

Order: ``_details_lock`` before ``poller.lock``, and ``_publish_lock`` before ``poller.lock``. No thread takes
``_details_lock`` and ``_publish_lock`` together.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.client.capabilities import Operation
from temporal_airflow_nb.display import ipython
from temporal_airflow_nb.display.failures import SHOWN
from temporal_airflow_nb.display.model import Instance, build_grid, format_duration, parse_time
from temporal_airflow_nb.errors import RunNotFoundError, ServiceUnavailableError, TemporalAirflowError
from temporal_airflow_nb.live_grid import page_requests
from temporal_airflow_nb.live_grid.front_end import FrontEnd, front_end
from temporal_airflow_nb.live_grid.messages import Delta, FullState, Request
from temporal_airflow_nb.live_grid.output import METADATA, Document, current_cell_id
from temporal_airflow_nb.live_grid.poller import GridPoller

if TYPE_CHECKING:
    from temporal_airflow_nb.live_grid.followed_run import FollowedRun
    from temporal_airflow_nb.live_grid.widget import RunWidget
    from temporal_airflow_nb.messages.runs import RunSnapshot
    from temporal_airflow_nb.messages.tasks import TaskDetails

__all__ = ["METADATA", "LiveGrid", "close_all", "make_widget", "show"]

log = logging.getLogger(__name__)

# Seconds between two changes that are sent to a page.
_MIN_INTERVAL = 0.1
# Seconds after which the stack answers although nothing has changed.
_LONG_POLL = 10.0
# A run that ended long ago is polled rarely, and not never: a user may clear it.
_IDLE_AFTER = 120.0
_IDLE_PAUSE = 5.0
_RECONNECT_PAUSE = 1.0
_DETAILS_TIMEOUT = 5.0
# Each open grid has a thread and a request that waits for the stack. Beyond this number, the oldest grid is closed.
_MAX_OPEN = 50
_LOST = "The connection to the stack is lost. Trying again; the run continues as soon as its worker is back."
_REFUSED = "The stack can't report the progress of the run. Trying again."

# The operations that a page asks for, by the names that the page has for them.
_PAGE_OPERATIONS: Mapping[Operation, str] = {
    "cancel_run": "cancel",
    "clear_tasks": "clear",
    "mark_tasks": "mark",
    "get_task": "task",
    "tail_log": "log",
}

# Changed without a lock: appending and removing are atomic, and loops go over a copy.
_open: list[LiveGrid] = []


def show(run: FollowedRun, view: str = "grid") -> LiveGrid:
    """Show a run and its further progress in the output of the current cell. Return at once."""
    live = LiveGrid(ipython.current_shell())
    live.follow(run, view)
    return live


def make_widget(run: FollowedRun, view: str = "grid") -> RunWidget:
    """Return a run's live grid as a widget that the caller places among others."""
    live = LiveGrid(None, FrontEnd.NONE)
    live.follow(run, view)
    assert live.widget is not None
    return live.widget


def close_all(note: str, address: str | None = None) -> None:
    """Stop following all runs, or those of one gateway, and show the note in their grids."""
    for live in list(_open):
        if address in (None, live.address):
            live.close(note)


def is_shown_here(run: FollowedRun) -> bool:
    """Return whether the output of the current cell shows a run."""
    current = getattr(ipython.current_shell(), "execution_count", None)
    return any(live.shows(run) and live.execution_count == current for live in list(_open))


class LiveGrid:
    """The output of one cell: first the progress until a run exists, then the run's grid.

    If the front end can't replace an output (IPython in a terminal), the output stays as :meth:`follow` first shows it.

    Parameters
    ----------
    shell
        The shell whose current cell gets the output.
    kind
        How the front end shows it; recognized by the environment if None.

    Attributes
    ----------
    address : str or None
        The address of the gateway that reports the run.
    widget : RunWidget or None
        The widget, if the front end can show one.
    """

    def __init__(self, shell: Any, kind: FrontEnd | None = None) -> None:
        self.address: str | None = None
        self.widget: RunWidget | None = None
        self.cell = current_cell_id(shell)
        self.execution_count = getattr(shell, "execution_count", None)
        self._shell = shell
        self._document = Document(shell, kind or front_end(shell))
        # Reentrant: `close` publishes the last output while it holds the lock.
        self._publish_lock = threading.RLock()
        self._closed = threading.Event()
        self._wake_event = threading.Event()
        self._thread_number = 0
        # Number of the change and the note that the output shows.
        self._published: tuple[int, str] | None = None
        self._note = ""
        self._changed_at = time.monotonic()
        # Try number and details of failed task instances, by task id and map index.
        self._details: dict[tuple[str, int], tuple[int, TaskDetails]] = {}
        # Number of the change up to which all details are known.
        self._details_seq: int | None = None
        self._details_lock = threading.Lock()

    @contextmanager
    def show_progress(self, title: str) -> Iterator[None]:
        """Show ``title`` and the seconds that the block takes, or that it failed."""
        if not self._document.is_replaceable:
            yield
            return
        is_over = threading.Event()
        begun = time.monotonic()

        def show_seconds() -> None:
            while not is_over.wait(0.5):
                self._document.show_card(
                    title, format_duration(round(time.monotonic() - begun, 1)), "running"
                )

        self._document.show_card(title, "", "running")
        progress = threading.Thread(target=show_seconds, name="temporal-airflow-progress", daemon=True)
        progress.start()
        failed = True
        try:
            yield
            failed = False
        finally:
            is_over.set()
            # Before anything else is published: no lock orders the outputs of these two threads.
            progress.join()
            if failed:
                self._document.show_card(title, "didn't succeed", "failed")

    def follow(self, run: FollowedRun, view: str = "grid") -> None:
        """Show a run and its further progress. Return at once.

        Parameters
        ----------
        run
            The run.
        view
            The view that the widget shows first: ``"grid"``, ``"graph"`` or ``"gantt"``.
        """
        self.address = self.address or run.client.address
        self.poller = GridPoller(run.client, run.dag_id, run.run_id)
        self._view = view
        self._run = run
        # In the thread of the cell, so that the first output belongs to the cell and errors are raised in it.
        self.poller.poll(retry=True)
        if self._document.kind in (FrontEnd.BUNDLE, FrontEnd.NONE):
            self._make_widget()
        self._publish()
        if self._document.kind is FrontEnd.TEXT:
            return
        _open.append(self)
        for oldest in _open[:-_MAX_OPEN]:
            oldest.close(
                "This grid stopped updating because newer grids are open. Use `run.show()` to open it again."
            )
        if self.cell is not None:
            self._shell.events.register("pre_run_cell", self._on_pre_run_cell)
        # Only the end: with a listener for every change, `Run.wait` would have to request every change.
        self._unsubscribe = run.subscribe(self._on_run_end, every_change=False)
        self._start()

    def shows(self, run: FollowedRun) -> bool:
        """Return whether this grid shows a run."""
        return (self._run.dag_id, self._run.run_id) == (run.dag_id, run.run_id)

    def close(self, note: str = "") -> None:
        """Stop following the run. The output stays, with the note if the run hasn't ended."""
        with self._publish_lock:
            if self._closed.is_set():
                return
            if note and hasattr(self, "poller") and not self.poller.state.ended:
                self._note = note
                # When the kernel ends, its sockets may be closed already, and errors of several classes are possible.
                with suppress(Exception):
                    self._publish(fetch_details=False, is_last=True)
            self._closed.set()
            # An idle thread waits for this event, not for `_closed`.
            self._wake_event.set()
        # Only the thread that set `_closed` arrives here. Without the lock, because closing the widget calls back.
        if self in _open:
            _open.remove(self)
            self._unsubscribe()
            if self.cell is not None:
                with suppress(ValueError):
                    self._shell.events.unregister("pre_run_cell", self._on_pre_run_cell)
        if self.widget is not None:
            # As above: closing a widget sends a message to the page.
            with suppress(Exception):
                self.widget.close()

    def full_state(self) -> FullState:
        """Return the whole state for the page."""
        with self.poller.lock:
            state = self.poller.state.full_state()
        client = self.poller.client
        return {
            **state,
            "connection": {"ok": self.poller.is_connected, "text": "" if self.poller.is_connected else _LOST},
            "production": client.production,
            "can_act": not ({"clear_tasks", "mark_tasks"} & client.refusals.keys()),
            "refused": {
                name: client.refusals[operation].reason
                for operation, name in _PAGE_OPERATIONS.items()
                if operation in client.refusals
            },
            "follows": not self._closed.is_set(),
        }

    def focus(self, run_id: str) -> None:
        """Follow another run of the DAG, in the output and in the page."""
        delta = self.poller.focus(run_id)
        # A new dict: another thread may be reading or filling the one of the former run.
        self._details = {}
        self._details_seq = None
        self._send_change(delta)
        self._start()

    def show_view(self, view: str) -> None:
        """Remember the view that the page shows."""
        self._view = view

    def wake(self) -> None:
        """Poll for changes now."""
        self._wake_event.set()

    def _answer(self, request: Request) -> Any:
        self._document.is_mounted = True
        return page_requests.answer(self, request)

    def _make_widget(self) -> None:
        """Make the widget. If it can't be imported, the output is HTML only.

        Without a widget, the output is published often enough to be live (``Document.needs_new_clocks``).
        """
        try:
            from temporal_airflow_nb.live_grid.widget import RunWidget
        except Exception:
            # The import also executes anywidget and ipywidgets, which may raise anything if their versions don't match.
            if self._document.kind is FrontEnd.NONE:
                raise
            log.warning("The live grid is shown as HTML: its widget can't be imported.", exc_info=True)
            self._document.kind = FrontEnd.HTML
            return
        key = self._document.key if self._document.kind is FrontEnd.MOUNTING else ""
        self.widget = RunWidget(self.full_state, self._answer, key=key, view=self._view)

    def _start(self) -> None:
        """Start a thread that follows the run in focus.

        The former thread ends when its poll is answered, because it no longer has the latest number.
        """
        with self._publish_lock:
            self._thread_number += 1
            number = self._thread_number
        threading.Thread(
            target=self._keep_following,
            args=(number,),
            name=f"temporal-airflow-{self._run.dag_id}",
            daemon=True,
        ).start()

    def _keep_following(self, number: int) -> None:
        try:
            with self._publish_lock:
                mounts = self._document.kind is FrontEnd.MOUNTING and self.widget is None
                # Under the lock: otherwise `close` could miss a widget that is just being made.
                if mounts and not self._closed.is_set():
                    self._make_widget()
            # Read without the lock: after an old number, the thread polls once more, which does no harm.
            while number == self._thread_number and not self._closed.is_set():
                self._poll_once()
        except Exception as error:
            # A thread can't raise into a cell, so the grid shows the error, and the log has its traceback. At the
            # kernel's end, showing it fails, too.
            log.debug("The thread of a live grid ended with an error.", exc_info=True)
            with suppress(Exception):
                if number == self._thread_number:
                    self.close(f"The grid stopped updating: {error}")

    def _poll_once(self) -> None:
        begun = time.monotonic()
        is_idle = self.poller.state.ended and begun - self._changed_at > _IDLE_AFTER
        try:
            delta = self.poller.poll(0.0 if is_idle else self._poll_timeout())
        except RunNotFoundError:
            # The run was deleted: `_keep_following` closes the grid.
            raise
        except TemporalAirflowError as error:
            is_unreachable = isinstance(error, ServiceUnavailableError)
            self._report_connection(_LOST if is_unreachable else f"{_REFUSED} {error.message}")
            self._closed.wait(_RECONNECT_PAUSE)
            return
        self._report_connection("")
        self._send_change(delta)
        if self._is_due():
            self._publish()
        if is_idle and delta is None:
            self._wake_event.wait(_IDLE_PAUSE)
            self._wake_event.clear()
        else:
            self._closed.wait(max(0.0, _MIN_INTERVAL - (time.monotonic() - begun)))

    def _poll_timeout(self) -> float:
        """Return the seconds to wait for a change before the output has to be published again."""
        if self._is_outdated():
            return max(0.05, self._document.seconds_until_due)
        if self._document.needs_new_clocks and not self.poller.state.ended:
            run = self.poller.state.run
            start = parse_time(run["start_date"] if run else None)
            return max(self._document.seconds_until_due, _clock_interval(start))
        return _LONG_POLL

    def _send_change(self, delta: Delta | None) -> None:
        if delta is None:
            return
        self._changed_at = time.monotonic()
        if self.widget is not None:
            is_full = delta["type"] == "full"
            self.widget.send_message({"type": "full", "state": self.full_state()} if is_full else delta)

    def _report_connection(self, note: str) -> None:
        if note == self._note:
            return
        self._note = note
        if self.widget is not None:
            self.widget.send_message({"type": "connection", "ok": not note, "text": note})
        # Without details: the stack may be unreachable, and each request for them would wait in vain.
        self._publish(fetch_details=False)

    def _on_pre_run_cell(self, info: Any) -> None:
        # If the cell is executed again, the front end has cleared the output that this grid would replace.
        if info.cell_id == self.cell:
            self.close()

    def _on_run_end(self, snapshot: RunSnapshot) -> None:
        # Called by the thread that waits for the run. It publishes the end itself, before the other thread does: its
        # cell may be the last one of the notebook, and nbclient records no update after the last cell.
        if self.poller.state.run_id != snapshot["run_id"]:
            return
        with suppress(TemporalAirflowError):
            self._send_change(self.poller.poll())
        if self._is_outdated():
            self._publish()

    def _is_outdated(self) -> bool:
        return self._published != (self.poller.state.seq, self._note)

    def _is_due(self) -> bool:
        if not self._is_outdated():
            needs_clocks = self._document.needs_new_clocks and not self.poller.state.ended
            return needs_clocks and self._document.seconds_until_due == 0
        return self._document.seconds_until_due == 0 or self.poller.state.ended

    def _publish(self, *, fetch_details: bool = True, is_last: bool = False) -> None:
        """Publish the present state, unless it is the final one and is already shown."""
        if fetch_details:
            # Before the lock: the stack may take seconds to answer.
            self._fetch_failure_details()
        with self._publish_lock:
            if self._closed.is_set():
                return
            with self.poller.lock:
                state = self.poller.state
                published, has_ended = (state.seq, self._note), state.ended
                # The state never changes a row that it has stored, so these can be rendered without the lock.
                snapshot, failed = state.snapshot(), state.failed
            if self._published == published and has_ended:
                return
            shown = build_grid(snapshot, note=self._note)
            if failed:
                shown = build_grid(snapshot, note=self._note, details=self._known_details(shown.failures))
            self._published = published
            with_widget = self._document.kind is FrontEnd.BUNDLE and not (has_ended or is_last)
            self._document.show_grid(shown, self.widget if with_widget else None)

    def _fetch_failure_details(self) -> None:
        """Ask the stack for unknown details of the first failures."""
        with self._details_lock:
            with self.poller.lock:
                seq, failed = self.poller.state.seq, self.poller.state.failed
                snapshot = self.poller.state.snapshot() if failed and seq != self._details_seq else None
                # The dict of this run: `focus` may replace `_details` while the stack answers.
                details = self._details
            if snapshot is None:
                return
            failures = build_grid(snapshot).failures[:SHOWN]
            for instance in failures:
                key = (instance.task_id, instance.map_index)
                if details.get(key, (None,))[0] == instance.try_number:
                    continue
                with suppress(TemporalAirflowError):
                    client = self.poller.client.with_limits(timeout=_DETAILS_TIMEOUT)
                    followed = self.poller.state
                    answer = client.get_task(followed.dag_id, followed.run_id, *key)
                    details[key] = (instance.try_number, answer)
            if len(self._known_details(failures)) == len(failures):
                self._details_seq = seq

    def _known_details(self, failed: list[Instance]) -> dict[tuple[str, int], TaskDetails]:
        """Return the known details of the first failures."""
        details = self._details
        keys = [(instance.task_id, instance.map_index) for instance in failed[:SHOWN]]
        return {key: details[key][1] for key in keys if key in details}


def _clock_interval(start: datetime | None) -> float:
    """Return the seconds between two updates of the clocks: fewer updates the longer the run takes."""
    if start is None:
        return _LONG_POLL
    seconds = (datetime.now(timezone.utc) - start).total_seconds()
    if seconds < 60:
        return 1.0
    return 5.0 if seconds < 600 else _LONG_POLL
