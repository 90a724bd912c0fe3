"""How a run shows itself in a notebook."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError, TemporalAirflowError

if TYPE_CHECKING:
    from temporal_airflow_nb.display.failures import Failures
    from temporal_airflow_nb.notebook.widget import RunWidget

VIEWS = ("grid", "graph", "gantt")
# Of many failures, the first ones tell enough.
_ASKED_FOR = 10


class RunDisplay:
    """The part of :class:`~temporal_airflow_nb.run.Run` that shows it."""

    _call: Callable[..., dict[str, Any]]
    _fresh: Callable[[], Mapping[str, Any] | None]
    snapshot: Callable[[], Mapping[str, Any]]

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
        from temporal_airflow_nb.display.failures import Failures, failure
        from temporal_airflow_nb.display.model import grid

        failed = grid(self.snapshot()).failures
        asked = [failure(one, self._details(one.task_id, one.map_index)) for one in failed[:_ASKED_FOR]]
        return Failures([*asked, *map(failure, failed[_ASKED_FOR:])])

    def _details(self, task_id: str, map_index: int) -> dict[str, Any] | None:
        try:
            return self._call("task", task_id=task_id, map_index=map_index)
        except ServiceUnavailableError:
            raise
        except TemporalAirflowError:
            # Not every door tells more than that the task failed.
            return None

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
        from temporal_airflow_nb.notebook import live, shells

        _check(view)
        if shells.present() is None:
            print(self._repr_mimebundle_()["text/plain"])
        else:
            live.show(self, view)  # type: ignore[arg-type]

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
        from temporal_airflow_nb.notebook import live

        _check(view)
        return live.widget(self, view)  # type: ignore[arg-type]

    def _tell_failures(self) -> None:
        """Show why the run failed in the output of the cell that has waited for it, unless its grid is there."""
        from temporal_airflow_nb.notebook import live, shells

        in_a_cell = threading.current_thread() is threading.main_thread()
        kernel = getattr(shells.present(), "kernel", None)
        if kernel is None or not in_a_cell or live.is_shown_here(self):  # type: ignore[arg-type]
            return
        from IPython.display import display

        with suppress(TemporalAirflowError):
            if failed := self.failures:
                display(failed)

    def _ipython_display_(self) -> None:
        """Show a run that goes on live; of one that has ended, IPython then asks for the static picture."""
        snapshot = self._fresh()
        if "ipykernel" not in sys.modules or snapshot is None or snapshot["state"] in FINAL_RUN_STATES:
            raise NotImplementedError
        self.show()

    def _display_(self) -> RunWidget:
        """Return what marimo shows of a run."""
        return self.widget()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from temporal_airflow_nb.display import html, model, text

        snapshot = self._fresh()
        if snapshot is None:
            return {"text/plain": repr(self)}
        shown = model.grid(snapshot)
        return {"text/html": str(html.render(shown)), "text/plain": text.plain(shown)}

    def _repr_html_(self) -> str | None:
        return self._repr_mimebundle_().get("text/html")


def _check(view: str) -> None:
    if view not in VIEWS:
        raise InvalidInputError(f"There is no view {view!r}.", hint=f"There are {', '.join(VIEWS)}.")
