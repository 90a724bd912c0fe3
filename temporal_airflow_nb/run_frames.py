"""What a run tells as frames and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError

if TYPE_CHECKING:
    import pandas as pd

FRAMES = ("tasks", "tries", "xcoms", "events", "assets")


class RunFrames:
    """The part of :class:`~temporal_airflow_nb.run.Run` that makes frames and pictures."""

    dag_id: str
    run_id: str
    _call: Callable[..., dict[str, Any]]
    _hasty: Any
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

    def _task_columns(self) -> Mapping[str, Any]:
        if self._last is None or self._last["state"] not in FINAL_RUN_STATES:
            return self._call("tasks_columns")
        try:
            return self._hasty.call("tasks_columns", dag_id=self.dag_id, run_id=self.run_id)
        except ServiceUnavailableError:
            return self._last
