"""A run's live grid in the output of a cell, fed by a thread while the kernel does other things."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.client.capabilities import Operation
from temporal_airflow_nb.display import ipython
from temporal_airflow_nb.display.failures import SHOWN
from temporal_airflow_nb.display.model import Instance, duration, grid, moment
from temporal_airflow_nb.errors import RunNotFoundError, ServiceUnavailableError, TemporalAirflowError
from temporal_airflow_nb.live_grid import page_requests
from temporal_airflow_nb.live_grid.front_end import FrontEnd, front_end
from temporal_airflow_nb.live_grid.output import METADATA, Document, cell_of
from temporal_airflow_nb.live_grid.poller import GridPoller

if TYPE_CHECKING:
    from temporal_airflow_nb.live_grid.followed_run import FollowedRun
    from temporal_airflow_nb.live_grid.grid_state import Delta
    from temporal_airflow_nb.live_grid.widget import RunWidget
    from temporal_airflow_nb.messages.runs import RunSnapshot
    from temporal_airflow_nb.messages.tasks import TaskDetails

__all__ = ["METADATA", "LiveGrid", "close_all", "show", "widget"]

# At most so many changes a second go to a page.
_INTERVAL = 0.1
_LONG_POLL = 10.0
# A run that ended long ago is looked at now and then: it may be cleared.
_IDLE_AFTER = 120.0
_IDLE_PAUSE = 5.0
_PAUSE = 1.0
_DETAILS_WITHIN = 5.0
_MOST = 50
_LOST = "The connection to the stack is lost; trying again. The run goes on as soon as its worker is back."
_REFUSED = "The stack doesn't tell how the run goes on; trying again."

# The operations that a page asks for, by the names that the page has for them.
_PAGE_OPERATIONS: Mapping[Operation, str] = {
    "cancel_run": "cancel",
    "clear_tasks": "clear",
    "mark_tasks": "mark",
    "get_task": "task",
    "tail_log": "log",
}

_open: list[LiveGrid] = []


def show(run: FollowedRun, view: str = "grid") -> LiveGrid:
    """Show a run in the output of the current cell, and its progress from then on. Returns at once."""
    live = LiveGrid(ipython.current_shell())
    live.follow(run, view)
    return live


def widget(run: FollowedRun, view: str = "grid") -> RunWidget:
    """Return a run's live grid as a widget, to be placed among others."""
    live = LiveGrid(None, FrontEnd.NONE)
    live.follow(run, view)
    assert live.widget is not None
    return live.widget


def close_all(note: str, address: str | None = None) -> None:
    """Stop following runs, and say so in their grids: all of them, or those of one stack's gateway."""
    for live in list(_open):
        if address in (None, live.address):
            live.close(note)


def is_shown_here(run: FollowedRun) -> bool:
    """Return whether the output of the cell that is executed shows a run."""
    here = getattr(ipython.current_shell(), "execution_count", None)
    return any(live.shows(run) and live.execution_count == here for live in list(_open))


class LiveGrid:
    """One output: first what happens before there is a run, then the run's grid, kept up to date.

    Where the front end can't replace an output (IPython in a terminal), there is only what :meth:`follow`
    shows first.

    Parameters
    ----------
    shell
        The shell whose current cell gets the output.
    kind
        How the front end takes it; as the environment says if None.

    Attributes
    ----------
    address : str or None
        Of the gateway that the run is followed through.
    widget : RunWidget or None
        The widget, where the front end has one.
    """

    def __init__(self, shell: Any, kind: FrontEnd | None = None) -> None:
        self.address: str | None = None
        self.widget: RunWidget | None = None
        self.cell = cell_of(shell)
        self.execution_count = getattr(shell, "execution_count", None)
        self._shell = shell
        self._document = Document(shell, kind or front_end(shell))
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._woken = threading.Event()
        self._turn = 0
        self._pictured: tuple[int, str] | None = None
        self._note = ""
        self._changed = time.monotonic()
        self._details: dict[tuple[str, int], tuple[int, TaskDetails]] = {}
        self._learned: int | None = None
        self._learning = threading.Lock()

    @contextmanager
    def busy(self, title: str) -> Iterator[None]:
        """Show ``title`` and the seconds that the block takes; say so if it fails."""
        if not self._document.replaces:
            yield
            return
        over = threading.Event()
        begun = time.monotonic()

        def tick() -> None:
            while not over.wait(0.5):
                self._document.card(title, duration(round(time.monotonic() - begun, 1)), "running")

        self._document.card(title, "", "running")
        ticking = threading.Thread(target=tick, name="temporal-airflow-progress", daemon=True)
        ticking.start()
        failed = True
        try:
            yield
            failed = False
        finally:
            over.set()
            ticking.join()
            if failed:
                self._document.card(title, "didn't succeed", "failed")

    def follow(self, run: FollowedRun, view: str = "grid") -> None:
        """Show a run, and its progress from then on. Returns at once.

        Parameters
        ----------
        run
            The run.
        view
            What the widget shows first: ``"grid"``, ``"graph"`` or ``"gantt"``.
        """
        self.address = self.address or run.client.address
        self.poller = GridPoller(run.client, run.dag_id, run.run_id)
        self._view = view
        self._run = run
        self.poller.poll(retry=True)
        if self._document.kind in (FrontEnd.BUNDLE, FrontEnd.NONE):
            self._make_widget()
        self._picture()
        if self._document.kind is FrontEnd.TEXT:
            return
        _open.append(self)
        for oldest in _open[:-_MOST]:
            oldest.close("Newer grids took this one's place; `run.show()` shows it again.")
        if self.cell is not None:
            self._shell.events.register("pre_run_cell", self._on_cell)
        self._unsubscribe = run.subscribe(self._on_end, every_change=False)
        self._start()

    def shows(self, run: FollowedRun) -> bool:
        """Return whether this grid is of a run."""
        return (self._run.dag_id, self._run.run_id) == (run.dag_id, run.run_id)

    def close(self, note: str = "") -> None:
        """Stop following the run; what is shown stays, with a note where the run hasn't ended."""
        with self._lock:
            if self._closed.is_set():
                return
            if note and hasattr(self, "poller") and not self.poller.state.ended:
                self._note = note
                with suppress(Exception):
                    self._picture(ask=False, last=True)
            self._closed.set()
            self._woken.set()
        if self in _open:
            _open.remove(self)
            self._unsubscribe()
            if self.cell is not None:
                with suppress(ValueError):
                    self._shell.events.unregister("pre_run_cell", self._on_cell)
        if self.widget is not None:
            with suppress(Exception):
                self.widget.close()

    def full(self) -> dict[str, object]:
        """Return the whole state as a page takes it."""
        with self.poller.lock:
            state = self.poller.state.full()
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
        """Follow another run of the DAG, here and in the page."""
        delta = self.poller.focus(run_id)
        self._details.clear()
        self._learned = None
        self._pass_on(delta)
        self._start()

    def show_view(self, view: str) -> None:
        """Remember what the page shows of the run."""
        self._view = view

    def wake(self) -> None:
        """Look for changes at once."""
        self._woken.set()

    def _answer(self, request: page_requests.Request) -> Any:
        self._document.watched = True
        return page_requests.answer(self, request)

    def _make_widget(self) -> None:
        """Make the widget; where that can't be imported, the document is all there is."""
        try:
            from temporal_airflow_nb.live_grid.widget import RunWidget
        except Exception:
            if self._document.kind is FrontEnd.NONE:
                raise
            self._document.kind = FrontEnd.HTML
            return
        key = self._document.key if self._document.kind is FrontEnd.MOUNTING else ""
        self.widget = RunWidget(self.full, self._answer, key=key, view=self._view)

    def _start(self) -> None:
        """Have a thread follow what the feed holds; one that follows something else ends when it is answered."""
        self._turn += 1
        threading.Thread(
            target=self._keep_following,
            args=(self._turn,),
            name=f"temporal-airflow-{self._run.dag_id}",
            daemon=True,
        ).start()

    def _keep_following(self, turn: int) -> None:
        try:
            with self._lock:
                mounts = self._document.kind is FrontEnd.MOUNTING and self.widget is None
                if mounts and not self._closed.is_set():
                    self._make_widget()
            while turn == self._turn and not self._closed.is_set():
                self._step()
        except Exception as error:
            # A thread has no output of its own, and at the kernel's end there is nobody to show anything to.
            with suppress(Exception):
                if turn == self._turn:
                    self.close(f"The run isn't followed any more: {error}")

    def _step(self) -> None:
        begun = time.monotonic()
        idle = self.poller.state.ended and begun - self._changed > _IDLE_AFTER
        try:
            delta = self.poller.poll(0.0 if idle else self._patience())
        except RunNotFoundError:
            raise
        except TemporalAirflowError as error:
            unreachable = isinstance(error, ServiceUnavailableError)
            self._say_connection(_LOST if unreachable else f"{_REFUSED} {error.message}")
            self._closed.wait(_PAUSE)
            return
        self._say_connection("")
        self._pass_on(delta)
        if self._is_due():
            self._picture()
        if idle and delta is None:
            self._woken.wait(_IDLE_PAUSE)
            self._woken.clear()
        else:
            self._closed.wait(max(0.0, _INTERVAL - (time.monotonic() - begun)))

    def _patience(self) -> float:
        """Return for how long to wait for a change before a picture is due."""
        if self._is_outdated():
            return max(0.05, self._document.wait)
        if self._document.animated and not self.poller.state.ended:
            return max(
                self._document.wait,
                _tick(moment(run["start_date"] if (run := self.poller.state.run) else None)),
            )
        return _LONG_POLL

    def _pass_on(self, delta: Delta | None) -> None:
        if delta is None:
            return
        self._changed = time.monotonic()
        if self.widget is not None:
            self.widget.tell({"type": "full", "state": self.full()} if delta["type"] == "full" else delta)

    def _say_connection(self, note: str) -> None:
        if note == self._note:
            return
        self._note = note
        if self.widget is not None:
            self.widget.tell({"type": "connection", "ok": not note, "text": note})
        self._picture(ask=False)

    def _on_cell(self, info: Any) -> None:
        # The front end has cleared the output of a cell that is executed again.
        if info.cell_id == self.cell:
            self.close()

    def _on_end(self, snapshot: RunSnapshot) -> None:
        # Whoever learns first that the run has ended shows it: the cell that waits for the run may be the
        # last to be executed, and no update is recorded in the notebook after it.
        if self.poller.state.run_id != snapshot["run_id"]:
            return
        with suppress(TemporalAirflowError):
            self._pass_on(self.poller.poll())
        if self._is_outdated():
            self._picture()

    def _is_outdated(self) -> bool:
        return self._pictured != (self.poller.state.seq, self._note)

    def _is_due(self) -> bool:
        if not self._is_outdated():
            return self._document.animated and not self.poller.state.ended and self._document.wait == 0
        return self._document.wait == 0 or self.poller.state.ended

    def _picture(self, *, ask: bool = True, last: bool = False) -> None:
        if ask:
            self._learn()
        with self._lock:
            if self._closed.is_set():
                return
            with self.poller.lock:
                state = self.poller.state
                pictured, ended = (state.seq, self._note), state.ended
                snapshot, failed = state.snapshot(), state.failed
            if self._pictured == pictured and ended:
                return
            shown = grid(snapshot, note=self._note)
            if failed:
                shown = grid(snapshot, note=self._note, details=self._why(shown.failures))
            self._pictured = pictured
            bundled = self._document.kind is FrontEnd.BUNDLE and not (ended or last)
            self._document.grid(shown, self.widget if bundled else None)

    def _learn(self) -> None:
        """Ask for what isn't known yet of the first failures; nothing else waits for the answers."""
        with self._learning:
            with self.poller.lock:
                seq, failed = self.poller.state.seq, self.poller.state.failed
                snapshot = self.poller.state.snapshot() if failed and seq != self._learned else None
            if snapshot is None:
                return
            failures = grid(snapshot).failures[:SHOWN]
            for instance in failures:
                key = (instance.task_id, instance.map_index)
                if self._details.get(key, (None,))[0] == instance.try_number:
                    continue
                with suppress(TemporalAirflowError):
                    client = self.poller.client.with_limits(timeout=_DETAILS_WITHIN)
                    state = self.poller.state
                    details = client.get_task(state.dag_id, state.run_id, *key)
                    self._details[key] = (instance.try_number, details)
            if len(self._why(failures)) == len(failures):
                self._learned = seq

    def _why(self, failed: list[Instance]) -> dict[tuple[str, int], TaskDetails]:
        """Return what is known of the first failures."""
        keys = [(instance.task_id, instance.map_index) for instance in failed[:SHOWN]]
        return {key: self._details[key][1] for key in keys if key in self._details}


def _tick(start: datetime | None) -> float:
    """Return for how long a picture may stay the same: its clock shows seconds, later less often."""
    if start is None:
        return _LONG_POLL
    seconds = (datetime.now(timezone.utc) - start).total_seconds()
    if seconds < 60:
        return 1.0
    return 5.0 if seconds < 600 else _LONG_POLL
