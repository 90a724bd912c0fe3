"""The frames and the chart of a run, made from tables that the stack returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb import frames
from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError, TemporalAirflowError

if TYPE_CHECKING:
    import pandas as pd

    from temporal_airflow_nb.dag_runs.view import RunView
    from temporal_airflow_nb.messages.grid import FormerTry, TaskKey
    from temporal_airflow_nb.messages.runs import RunSnapshot, TaskRow
    from temporal_airflow_nb.messages.tables import Table

FRAMES = ("tasks", "tries", "xcoms", "events", "assets")


def frame(run: RunView, name: str, *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return one of a run's frames; see :meth:`temporal_airflow_nb.Run.frame`."""
    client, which = run.client, (run.dag_id, run.run_id)
    if name == "tasks":
        return frames.tasks_frame(_tasks(run), dtype_backend=dtype_backend)
    if name == "tries":
        return frames.tries_frame(client.get_tries_table(*which), dtype_backend=dtype_backend)
    if name == "xcoms":
        return frames.xcoms_frame(client.list_xcoms(*which), dtype_backend=dtype_backend)
    if name == "events":
        return frames.events_frame(client.get_events_table(*which), dtype_backend=dtype_backend)
    if name == "assets":
        return frames.assets_frame(client.get_assets_table(*which), dtype_backend=dtype_backend)
    raise InvalidInputError(f"A run has no frame {name!r}.", hint=f"It has: {', '.join(FRAMES)}.", name=name)


def plot(run: RunView, library: str | None = None) -> Any:
    """Return the Gantt chart of a run; see :meth:`temporal_airflow_nb.Run.plot`."""
    title = f"{run.dag_id} · {run.run_id}"
    if library == "matplotlib":
        from temporal_airflow_nb.display.gantt_matplotlib import draw_gantt

        return draw_gantt(frame(run, "tries"), title)
    if library is not None:
        raise InvalidInputError(
            f"There are no charts by {library!r}.",
            hint='Omit `library` for an SVG, or use "matplotlib".',
            library=library,
        )
    from temporal_airflow_nb.display import model, text
    from temporal_airflow_nb.display.gantt_svg import render_gantt
    from temporal_airflow_nb.display.picture import Picture

    snapshot = _with_tries(run)
    return Picture(render_gantt(snapshot), text.render_text(model.build_grid(snapshot)))


def _with_tries(run: RunView) -> Mapping[str, object]:
    """Return a run's snapshot with the former tries of each task, if the client can list them."""
    snapshot = run.snapshot()
    try:
        columns = run.client.without_retries().get_tries_table(run.dag_id, run.run_id)["columns"]
    except TemporalAirflowError:
        # The stack is gone, or the client can't list tries.
        return snapshot
    # In the order of `FormerTry`, after the key.
    names = ("task_id", "map_index", "try_number", "state", "queued_dttm", "start_date", "end_date")
    tries: dict[TaskKey, list[FormerTry]] = {}
    for task_id, map_index, *tried in zip(*(columns[name] for name in names), strict=True):
        tries.setdefault((task_id, map_index), []).append(tried)
    return {**snapshot, "tasks": [{**task, "tries": _former(task, tries)} for task in snapshot["tasks"]]}


def _tasks(run: RunView) -> Table | RunSnapshot:
    last = run._last_snapshot
    if last is None or last["state"] not in FINAL_RUN_STATES:
        return run.client.get_tasks_table(run.dag_id, run.run_id)
    # Without retries: there is an answer already if the stack is gone.
    try:
        return run.client.without_retries().get_tasks_table(run.dag_id, run.run_id)
    except ServiceUnavailableError:
        # The run has ended: its last snapshot holds what the stack would return.
        return last


def _former(task: TaskRow, tries: Mapping[TaskKey, list[FormerTry]]) -> list[FormerTry]:
    """Return the tries of a task instance before its latest."""
    now = [task["try_number"], task["state"]]
    return [tried for tried in tries.get((task["task_id"], task["map_index"]), ()) if tried[:2] != now]
