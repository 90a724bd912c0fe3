"""A run's grid in the output of a cell, kept up to date by a thread while the kernel does other things."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.display import html, text
from temporal_airflow_nb.display.model import Grid, duration, grid
from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import ServiceUnavailableError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from temporal_airflow_nb.run import Run, Snapshot

METADATA = "temporal_airflow"

_INTERVAL = 0.125
_SHARE_OF_TIME = 10
_LOST = "The connection to the stack is lost; trying again. The run goes on as soon as its worker is back."

_open: set[LiveGrid] = set()


def close_all(note: str, address: str | None = None) -> None:
    """Stop following runs, and say so in their grids: all of them, or those of one stack's gateway."""
    for live in list(_open):
        if address in (None, live.address):
            live.close(note)


def show(run: Run, view: str) -> None:
    """Show a run in the present cell."""
    from IPython import get_ipython

    LiveGrid(get_ipython()).follow(run, view)


class LiveGrid:
    """One output, replaced in place: first what happens before there is a run, then the run's grid.

    Where the front end can't replace an output (IPython in a terminal), there is only what :meth:`follow`
    shows first.

    Parameters
    ----------
    shell
        The shell whose current cell gets the output.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self.address: str | None = None
        self._shell = shell
        self._replaces = getattr(shell, "kernel", None) is not None
        self._display_id = uuid.uuid4().hex
        self._shown = False
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._last: Snapshot | None = None

    @contextmanager
    def busy(self, title: str) -> Iterator[None]:
        """Show ``title`` and the seconds that the block takes; say so if it fails."""
        if not self._replaces:
            yield
            return
        over = threading.Event()
        begun = time.monotonic()

        def tick() -> None:
            while not over.wait(0.5):
                self._card(title, duration(round(time.monotonic() - begun, 1)), "running")

        self._card(title, "", "running")
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
                self._card(title, "didn't succeed", "failed")

    def follow(self, run: Run, view: str = "grid") -> None:  # noqa: ARG002
        """Show a run, and its progress until it ends. Returns at once."""
        snapshot = run.snapshot()
        self._show(snapshot)
        if not self._replaces or self._closed.is_set():
            return
        _open.add(self)
        threading.Thread(
            target=self._keep_following,
            args=(run, snapshot, run.subscribe(self._on_snapshot)),
            name=f"temporal-airflow-{run.dag_id}",
            daemon=True,
        ).start()

    def close(self, note: str = "") -> None:
        """Stop following the run; what is shown stays, with a note."""
        with self._lock:
            if self._last is not None and not self._closed.is_set():
                self._publish_grid(grid(self._last, note=note))
            self._closed.set()
        _open.discard(self)

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        # Whoever learns first that the run has ended shows it: the cell that waits for the run may be the
        # last to be executed, and no update is recorded in the notebook after it.
        if snapshot["state"] in FINAL_RUN_STATES:
            self._show(snapshot)

    def _keep_following(self, run: Run, snapshot: Snapshot, unsubscribe: Callable[[], None]) -> None:
        try:
            self._follow_until_closed(run, snapshot)
        except Exception as error:
            # A thread has no output of its own, and at the kernel's end there is nobody to show anything to.
            with suppress(Exception):
                self.close(f"The run isn't followed any more: {error}")
        finally:
            unsubscribe()
            _open.discard(self)

    def _follow_until_closed(self, run: Run, last: Snapshot) -> None:
        while not self._closed.is_set():
            begun = time.monotonic()
            try:
                last = run.watch(last["version"], timeout=_tick(grid(last).seconds))
            except ServiceUnavailableError:
                self._show(last, _LOST)
                self._closed.wait(1.0)
                continue
            received = time.monotonic()
            self._show(last)
            self._closed.wait(
                max(_INTERVAL - (received - begun), (time.monotonic() - received) * _SHARE_OF_TIME)
            )

    def _show(self, snapshot: Snapshot, note: str = "") -> None:
        with self._lock:
            if self._closed.is_set():
                return
            self._last = snapshot
            if snapshot["state"] in FINAL_RUN_STATES:
                self._closed.set()
            self._publish_grid(grid(snapshot, note=note))

    def _publish_grid(self, shown: Grid) -> None:
        facts = {"dag_id": shown.dag_id, "run_id": shown.run_id, "state": shown.state}
        self._publish({"text/html": html.render(shown), "text/plain": text.plain(shown)}, {METADATA: facts})

    def _card(self, title: str, details: str, state: str) -> None:
        plain = f"{title} {details}".strip()
        self._publish({"text/html": html.card(title, details, state=state), "text/plain": plain}, {})

    def _publish(self, data: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
        self._shell.display_pub.publish(
            data=dict(data),
            metadata=dict(metadata),
            transient={"display_id": self._display_id},
            update=self._shown,
        )
        self._shown = True


def _tick(seconds: float | None) -> float:
    """Return for how long a picture may stay the same: its clock shows seconds, later less often."""
    if seconds is None or seconds < 60:
        return 1.0
    return 5.0 if seconds < 600 else 30.0
