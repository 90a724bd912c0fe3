"""What the functions behind a run's methods need of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from temporal_airflow_nb.client.protocol import Client, Snapshot


class RunView(Protocol):
    """A run as its frames, pictures and actions see it; see :class:`temporal_airflow_nb.Run`."""

    dag_id: str
    run_id: str
    _impatient_client: Client
    _last_snapshot: Snapshot | None

    @property
    def client(self) -> Client:
        """The client of the run's stack."""

    def _call(self, op: str, **body: Any) -> dict[str, Any]:
        """Call an operation of the client on this run."""

    def snapshot(self) -> Snapshot:
        """Return the run and its tasks as they are now."""

    def _last_known(self) -> Snapshot | None:
        """Return the run and its tasks as they are now, or as they were last seen; never wait, never raise."""

    def subscribe(
        self, listener: Callable[[Snapshot], None], *, every_change: bool = True
    ) -> Callable[[], None]:
        """Call ``listener`` with snapshots of the run; return a function that ends that."""
