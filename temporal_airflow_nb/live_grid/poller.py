"""The grid of a DAG as the stack has it, polled from any thread."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.errors import ServiceUnavailableError
from temporal_airflow_nb.live_grid.grid_state import Delta, GridState

if TYPE_CHECKING:
    from temporal_airflow_nb.client.protocol import Client

_RUNS = 14


class Feed:
    """A state that is brought up to date from the stack.

    Parameters
    ----------
    client
        The door to the stack.
    dag_id, run_id
        The run to hold first.

    Attributes
    ----------
    connected : bool
        Whether the last call reached the stack.
    """

    def __init__(self, client: Client, dag_id: str, run_id: str) -> None:
        self._patient = client
        self.client = copy.copy(client)
        self.client.patience = 0.0
        self.connected = True
        self.lock = threading.RLock()
        self.state = GridState(dag_id, run_id)
        self._epoch = 0

    def poll(self, timeout: float = 0.0, *, patient: bool = False) -> Delta | None:
        """Wait for a change, and take it in.

        Parameters
        ----------
        timeout
            Seconds to wait for it at most.
        patient
            Whether to wait for a stack that is out of reach.

        Returns
        -------
        dict or None
            The change; None if there was none, or if another thread took it in meanwhile.

        Raises
        ------
        ServiceUnavailableError
            The stack can't be reached.
        RunNotFoundError
            The run has been deleted.
        """
        with self.lock:
            epoch, run_id, cursor = self._epoch, self.state.run_id, self.state.cursor
        try:
            answer = self._ask(self._patient if patient else self.client, run_id, cursor, timeout)
        except ServiceUnavailableError:
            self.connected = False
            raise
        self.connected = True
        with self.lock:
            if epoch != self._epoch:
                return None
            self._epoch += 1
            return self.state.apply(answer)

    def focus(self, run_id: str) -> Delta | None:
        """Hold another run of the DAG, unless there is no such run; returns the change as :meth:`poll` does."""
        answer = self._ask(self._patient, run_id, None, 0.0)
        with self.lock:
            self._epoch += 1
            self.state.focus(run_id)
            return self.state.apply(answer)

    def _ask(self, client: Client, run_id: str, after: str | None, timeout: float) -> dict[str, Any]:
        return client.call(
            "feed", timeout=timeout, dag_id=self.state.dag_id, run_id=run_id, runs=_RUNS, after=after
        )

    def call(self, op: str, *, timeout: float = 20.0, **body: Any) -> dict[str, Any]:
        """Call an operation on the run that is held."""
        return self.client.call(
            op, timeout=timeout, dag_id=self.state.dag_id, run_id=self.state.run_id, **body
        )
