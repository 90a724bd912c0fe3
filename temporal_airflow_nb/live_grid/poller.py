"""Keeps the grid of a DAG up to date with the stack, for callers in any thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from temporal_airflow_nb.errors import ServiceUnavailableError
from temporal_airflow_nb.live_grid.grid_state import Delta, GridState

if TYPE_CHECKING:
    from temporal_airflow_nb.client.protocol import StackClient
    from temporal_airflow_nb.messages.grid import GridChanges

_ANSWER_SECONDS = 20.0


class GridPoller:
    """The state of a grid, and how to bring it up to date.

    ``lock`` guards ``state``, and is never held while the stack is asked. A poll whose answer arrives after another
    answer was applied drops its own: the next poll asks from the new state.

    Parameters
    ----------
    client
        The client of the stack.
    dag_id, run_id
        The run to follow first.

    Attributes
    ----------
    client : StackClient
        Asks once, without retries.
    is_connected : bool
        Whether the last poll reached the stack.
    """

    def __init__(self, client: StackClient, dag_id: str, run_id: str) -> None:
        self._retrying_client = client
        self.client = client.without_retries(timeout=_ANSWER_SECONDS)
        self.is_connected = True
        self.lock = threading.RLock()
        self.state = GridState(dag_id, run_id)
        # Counts the answers that were applied.
        self._epoch = 0

    def poll(self, timeout: float = 0.0, *, retry: bool = False) -> Delta | None:
        """Wait for a change, and apply it.

        Parameters
        ----------
        timeout
            Seconds to wait at most.
        retry
            Whether to try a stack that can't be reached again for a while.

        Returns
        -------
        dict or None
            The change; None if there was none, or if another thread has applied an answer meanwhile.

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
            answer = self._ask(self._retrying_client if retry else self.client, run_id, cursor, timeout)
        except ServiceUnavailableError:
            self.is_connected = False
            raise
        self.is_connected = True
        with self.lock:
            if epoch != self._epoch:
                return None
            self._epoch += 1
            return self.state.apply(answer)

    def focus(self, run_id: str) -> Delta | None:
        """Follow another run of the DAG, unless there is no such run; return the change as :meth:`poll` does."""
        answer = self._ask(self._retrying_client, run_id, None, 0.0)
        with self.lock:
            self._epoch += 1
            self.state.focus(run_id)
            return self.state.apply(answer)

    def _ask(self, client: StackClient, run_id: str, after: str | None, timeout: float) -> GridChanges:
        return client.get_grid_changes(self.state.dag_id, run_id, after=after, timeout=timeout)
