"""The protocol of the runs that a live grid can follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from temporal_airflow_nb.client.protocol import StackClient
from temporal_airflow_nb.messages.runs import RunSnapshot


class FollowedRun(Protocol):
    """A run that a grid can follow, such as :class:`temporal_airflow_nb.Run`."""

    dag_id: str
    run_id: str

    @property
    def client(self) -> StackClient:
        """The client of the run's stack."""
        ...

    def subscribe(
        self, listener: Callable[[RunSnapshot], None], *, every_change: bool = True
    ) -> Callable[[], None]:
        """Call ``listener`` with snapshots of the run; return a function that ends the calls."""
        ...
