"""Shows a run: its failures, its live grid, its static picture."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError, TemporalAirflowError

if TYPE_CHECKING:
    from temporal_airflow_nb.dag_runs.view import RunView
    from temporal_airflow_nb.display.failures import Failures
    from temporal_airflow_nb.live_grid.widget import RunWidget
    from temporal_airflow_nb.messages.tasks import TaskDetails

VIEWS = ("grid", "graph", "gantt")
# Each card costs a request. The first failures explain a run; the others are listed without details.
_FAILURES_WITH_DETAILS = 10


def failures(run: RunView) -> Failures:
    """Return the failed task instances of a run; see :attr:`temporal_airflow_nb.Run.failures`."""
    from temporal_airflow_nb.display.failures import Failures, describe_failure
    from temporal_airflow_nb.display.model import build_grid

    failed = build_grid(run.snapshot()).failures
    asked = [
        describe_failure(one, _details(run, one.task_id, one.map_index))
        for one in failed[:_FAILURES_WITH_DETAILS]
    ]
    return Failures([*asked, *map(describe_failure, failed[_FAILURES_WITH_DETAILS:])])


def _details(run: RunView, task_id: str, map_index: int) -> TaskDetails | None:
    try:
        return run.client.get_task(run.dag_id, run.run_id, task_id, map_index)
    except ServiceUnavailableError:
        raise
    except TemporalAirflowError:
        # The client of Temporal alone knows only the states and times of a task.
        return None


def show(run: RunView, view: str = "grid") -> None:
    """Show a run in the output of this cell; see :meth:`temporal_airflow_nb.Run.show`."""
    from temporal_airflow_nb.display import ipython
    from temporal_airflow_nb.live_grid import live

    _check_view(view)
    if ipython.current_shell() is None:
        print(mimebundle(run)["text/plain"])
    else:
        live.show(run, view)


def widget(run: RunView, view: str = "grid") -> RunWidget:
    """Return a run's live grid as a widget; see :meth:`temporal_airflow_nb.Run.widget`."""
    from temporal_airflow_nb.live_grid import live

    _check_view(view)
    return live.make_widget(run, view)


def show_failures(run: RunView) -> None:
    """Show why a run failed below the cell that waited for it, unless its output shows the run."""
    from temporal_airflow_nb.display import ipython
    from temporal_airflow_nb.live_grid import live

    # Output of another thread wouldn't appear in the cell that waits.
    in_main_thread = threading.current_thread() is threading.main_thread()
    kernel = getattr(ipython.current_shell(), "kernel", None)
    if kernel is None or not in_main_thread or live.is_shown_here(run):
        return
    from IPython.display import display

    # The run's state is known already, so `wait` mustn't fail because the details can't be read.
    with suppress(TemporalAirflowError):
        if failed := failures(run):
            display(failed)


def is_live(run: RunView) -> bool:
    """Return whether a run is shown live: in a notebook, while the run hasn't ended."""
    snapshot = run._last_known()
    return "ipykernel" in sys.modules and snapshot is not None and snapshot["state"] not in FINAL_RUN_STATES


def mimebundle(run: RunView) -> dict[str, str]:
    """Return the static picture of a run as HTML and as text."""
    from temporal_airflow_nb.display import html, model, text

    snapshot = run._last_known()
    if snapshot is None:
        return {"text/plain": repr(run)}
    shown = model.build_grid(snapshot)
    return {"text/html": str(html.render(shown)), "text/plain": text.render_text(shown)}


def _check_view(view: str) -> None:
    if view not in VIEWS:
        raise InvalidInputError(f"There is no view {view!r}.", hint=f"There are {', '.join(VIEWS)}.")
