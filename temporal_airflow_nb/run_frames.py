"""What a run tells as frames and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError, TemporalAirflowError

if TYPE_CHECKING:
    import pandas as pd

FRAMES = ("tasks", "tries", "xcoms", "events", "assets")


class RunFrames:
    """The part of :class:`~temporal_airflow_nb.run.Run` that makes frames and pictures."""

    dag_id: str
    run_id: str
    _call: Callable[..., dict[str, Any]]
    _hasty: Any
    snapshot: Callable[[], Mapping[str, Any]]
    _last: Mapping[str, Any] | None

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
        from temporal_airflow_nb import frames

        if name not in FRAMES:
            raise InvalidInputError(
                f"A run has no frame {name!r}.", hint=f"It has: {', '.join(FRAMES)}.", name=name
            )
        if name == "tasks":
            return frames.tasks_frame(self._task_columns(), dtype_backend=dtype_backend)
        if name == "xcoms":
            return frames.xcoms_frame(self._call("xcoms")["xcoms"], dtype_backend=dtype_backend)
        make = {"tries": frames.tries_frame, "events": frames.events_frame, "assets": frames.assets_frame}
        return make[name](self._call(name), dtype_backend=dtype_backend)

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
        title = f"{self.dag_id} · {self.run_id}"
        if library == "matplotlib":
            from temporal_airflow_nb.display.gantt_matplotlib import axes

            return axes(self.tries, title)
        if library is not None:
            raise InvalidInputError(
                f"There are no charts by {library!r}.",
                hint='Leave `library` out for an SVG, or use "matplotlib".',
                library=library,
            )
        from temporal_airflow_nb.display import model, text
        from temporal_airflow_nb.display.gantt_svg import gantt_svg
        from temporal_airflow_nb.display.picture import Picture

        snapshot = self._with_tries()
        return Picture(gantt_svg(snapshot), text.plain(model.grid(snapshot)))

    def _with_tries(self) -> Mapping[str, Any]:
        """Return the run's snapshot with all tries of each task, as far as the stack can be asked for them."""
        snapshot = self.snapshot()
        try:
            columns = self._hasty.call("tries", dag_id=self.dag_id, run_id=self.run_id)["columns"]
        except TemporalAirflowError:
            # The stack is gone, or is a door that doesn't tell tries.
            return snapshot
        told = ("task_id", "map_index", "try_number", "state", "queued_dttm", "start_date", "end_date")
        tries: dict[tuple[str, int], list[list[Any]]] = {}
        for task_id, map_index, *tried in zip(*(columns[name] for name in told), strict=True):
            tries.setdefault((task_id, map_index), []).append(tried)
        return {**snapshot, "tasks": [{**task, "tries": _former(task, tries)} for task in snapshot["tasks"]]}

    def _task_columns(self) -> Mapping[str, Any]:
        if self._last is None or self._last["state"] not in FINAL_RUN_STATES:
            return self._call("tasks_columns")
        try:
            return self._hasty.call("tasks_columns", dag_id=self.dag_id, run_id=self.run_id)
        except ServiceUnavailableError:
            return self._last


def _former(task: Mapping[str, Any], tries: Mapping[tuple[str, int], list[list[Any]]]) -> list[list[Any]]:
    """Return the tries of a task instance that aren't what it is now."""
    now = [task["try_number"], task["state"]]
    return [tried for tried in tries.get((task["task_id"], task["map_index"]), ()) if tried[:2] != now]
