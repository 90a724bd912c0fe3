"""A run as the functions behind its methods use it."""

from __future__ import annotations

from typing import Protocol

from temporal_airflow_nb.live_grid.followed_run import FollowedRun
from temporal_airflow_nb.messages.runs import RunSnapshot


class RunView(FollowedRun, Protocol):
    """A run as its frames, pictures and actions use it; see :class:`temporal_airflow_nb.Run`."""

    _last_snapshot: RunSnapshot | None

    def snapshot(self) -> RunSnapshot:
        """Return the run and its tasks as they are now."""
        ...

    def _last_known(self) -> RunSnapshot | None:
        """Return the run as it is now, or as it was last seen. Wait 5 s at most, and never raise."""
        ...
