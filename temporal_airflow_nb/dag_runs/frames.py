"""The frames of a run and its chart: what :class:`~temporal_airflow_nb.Run` asks for and makes of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError, TemporalAirflowError

if TYPE_CHECKING:
    import pandas as pd

    from temporal_airflow_nb.dag_runs.view import RunView

FRAMES = ("tasks", "tries", "xcoms", "events", "assets")


def frame(run: RunView, name: str, *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return one of a run's frames; see :meth:`temporal_airflow_nb.Run.frame`."""
    from temporal_airflow_nb import frames

    if name not in FRAMES:
        raise InvalidInputError(
            f"A run has no frame {name!r}.", hint=f"It has: {', '.join(FRAMES)}.", name=name
        )
    if name == "tasks":
        return frames.tasks_frame(_task_columns(run), dtype_backend=dtype_backend)
    if name == "xcoms":
        return frames.xcoms_frame(run._call("xcoms")["xcoms"], dtype_backend=dtype_backend)
    make = {"tries": frames.tries_frame, "events": frames.events_frame, "assets": frames.assets_frame}
    return make[name](run._call(name), dtype_backend=dtype_backend)


def plot(run: RunView, library: str | None = None) -> Any:
    """Return the Gantt chart of a run; see :meth:`temporal_airflow_nb.Run.plot`."""
    title = f"{run.dag_id} · {run.run_id}"
    if library == "matplotlib":
        from temporal_airflow_nb.display.gantt_matplotlib import draw_gantt

        return draw_gantt(frame(run, "tries"), title)
    if library is not None:
        raise InvalidInputError(
            f"There are no charts by {library!r}.",
            hint='Leave `library` out for an SVG, or use "matplotlib".',
            library=library,
        )
    from temporal_airflow_nb.display import model, text
    from temporal_airflow_nb.display.gantt_svg import render_gantt
    from temporal_airflow_nb.display.picture import Picture

    snapshot = _with_tries(run)
    return Picture(render_gantt(snapshot), text.render_text(model.build_grid(snapshot)))


def _with_tries(run: RunView) -> Mapping[str, Any]:
    """Return a run's snapshot with all tries of each task, as far as the client can be asked for them."""
    snapshot = run.snapshot()
    try:
        columns = run._impatient_client.call("tries", dag_id=run.dag_id, run_id=run.run_id)["columns"]
    except TemporalAirflowError:
        # The stack is gone, or is a door that doesn't tell tries.
        return snapshot
    told = ("task_id", "map_index", "try_number", "state", "queued_dttm", "start_date", "end_date")
    tries: dict[tuple[str, int], list[list[Any]]] = {}
    for task_id, map_index, *tried in zip(*(columns[name] for name in told), strict=True):
        tries.setdefault((task_id, map_index), []).append(tried)
    return {**snapshot, "tasks": [{**task, "tries": _former(task, tries)} for task in snapshot["tasks"]]}


def _task_columns(run: RunView) -> Mapping[str, Any]:
    last = run._last_snapshot
    if last is None or last["state"] not in FINAL_RUN_STATES:
        return run._call("tasks_columns")
    try:
        return run._impatient_client.call("tasks_columns", dag_id=run.dag_id, run_id=run.run_id)
    except ServiceUnavailableError:
        return last


def _former(task: Mapping[str, Any], tries: Mapping[tuple[str, int], list[list[Any]]]) -> list[list[Any]]:
    """Return the tries of a task instance that aren't what it is now."""
    now = [task["try_number"], task["state"]]
    return [tried for tried in tries.get((task["task_id"], task["map_index"]), ()) if tried[:2] != now]
