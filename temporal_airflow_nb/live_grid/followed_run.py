"""The protocol of the runs that a live grid can follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from temporal_airflow_nb.client.protocol import Client, Snapshot


class FollowedRun(Protocol):
    """A run that a grid can follow, such as :class:`temporal_airflow_nb.Run`."""

    dag_id: str
    run_id: str

    @property
    def client(self) -> Client:
        """The client of the run's stack."""

    def subscribe(
        self, listener: Callable[[Snapshot], None], *, every_change: bool = True
    ) -> Callable[[], None]:
        """Call ``listener`` with snapshots of the run; return a function that ends the calls."""
