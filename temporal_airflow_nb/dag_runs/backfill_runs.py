"""The runs of a backfill."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from temporal_airflow_nb.dag_runs.run import Run
from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.errors import TemporalAirflowError

if TYPE_CHECKING:
    import pandas as pd


class BackfillRuns(list[Run]):
    """The runs of a backfill, earliest date first: a list of :class:`Run`.

    Examples
    --------
    >>> runs = ta.run_cell(cell, backfill=("2026-01-01", "2026-01-07"))   # doctest: +SKIP
    >>> runs.wait(), len(runs)                                            # doctest: +SKIP
    ('success', 7)
    """

    @property
    def states(self) -> list[str]:
        """The present state of each run."""
        return [run.state for run in self]

    @property
    def state(self) -> str:
        """The state of all: ``"running"`` until every run has ended, then ``"failed"`` if a run has failed."""
        states = self.states
        if any(state not in FINAL_RUN_STATES for state in states):
            return "queued" if states and set(states) == {"queued"} else "running"
        return "failed" if "failed" in states else "success"

    def wait(self, timeout: float | None = None) -> str:
        """Wait for all runs to end.

        Parameters
        ----------
        timeout
            Seconds to wait at most for all of them; forever if None.

        Returns
        -------
        str
            ``"success"``, or ``"failed"`` if a run has failed.

        Raises
        ------
        RunTimeoutError
            A run hadn't ended in time. All runs continue.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        ended = [
            run.wait(None if deadline is None else max(0.0, deadline - time.monotonic())) for run in self
        ]
        return "failed" if "failed" in ended else "success"

    def frame(self) -> pd.DataFrame:
        """Return a frame with a row for each run: ``run_id``, ``state``, ``start_date``, ``end_date``."""
        import pandas as pd

        rows = [run.snapshot() for run in self]
        columns = ("run_id", "state", "start_date", "end_date")
        frame: pd.DataFrame = pd.DataFrame({name: [dict(row)[name] for row in rows] for name in columns})
        for name in ("start_date", "end_date"):
            frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
        return frame

    def __repr__(self) -> str:
        return f"<BackfillRuns {self[0].dag_id}: {len(self)}>" if self else "<BackfillRuns: none>"

    def _repr_html_(self) -> str | None:
        try:
            return self.frame().to_html(index=False)
        except TemporalAirflowError:
            # The stack can't be reached, for example. IPython then shows the `repr`, which needs no request.
            return None


Runs = BackfillRuns
"""The name of :class:`BackfillRuns` in scripts that were written before it had this name."""
