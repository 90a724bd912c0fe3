"""Poll the stack for changes in the runs of a DAG.

Several threads of the kernel poll the same :class:`GridPoller`: the thread that follows the run, those that answer
the page, and the cell that waits for the run. ``lock`` protects the grid's state and ``_epoch``. No thread holds it
while it waits for the stack, and no thread takes another lock while it holds this one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from temporal_airflow_nb.errors import ServiceUnavailableError
from temporal_airflow_nb.live_grid.grid_state import GridState
from temporal_airflow_nb.live_grid.messages import Delta

if TYPE_CHECKING:
    from temporal_airflow_nb.client.protocol import StackClient
    from temporal_airflow_nb.messages.grid import GridChanges

_ANSWER_SECONDS = 20.0


class GridPoller:
    """Keeps the state of a DAG's grid up to date.

    Parameters
    ----------
    client
        The client of the stack.
    dag_id, run_id
        The run whose task instances are fetched first.

    Attributes
    ----------
    client : StackClient
        Asks once, without retries.
    is_connected : bool
        Whether the last poll reached the stack.
    lock : threading.RLock
        Protects ``state``.
    """

    def __init__(self, client: StackClient, dag_id: str, run_id: str) -> None:
        self._retrying_client = client
        # Without retries, so that a lost connection is shown at once.
        self.client = client.without_retries(timeout=_ANSWER_SECONDS)
        # Not protected by the lock: a single value, which only `poll` sets.
        self.is_connected = True
        self.lock = threading.RLock()
        self.state = GridState(dag_id, run_id)
        # Counts the answers. An answer to an older question would undo changes that a later one brought.
        self._epoch = 0

    def poll(self, timeout: float = 0.0, *, retry: bool = False) -> Delta | None:
        """Wait for a change and merge it into the state.

        Parameters
        ----------
        timeout
            Seconds to wait at most.
        retry
            Whether to try again if the stack can't be reached.

        Returns
        -------
        dict or None
            The change. None if there was none, or if another thread has merged an answer meanwhile.

        Raises
        ------
        ServiceUnavailableError
            The stack can't be reached.
        RunNotFoundError
            The run has been deleted.
        """
        with self.lock:
            epoch, run_id, cursor = self._epoch, self.state.run_id, self.state.cursor
        # Without the lock, because the stack may wait for `timeout` seconds.
        try:
            answer = self._request(self._retrying_client if retry else self.client, run_id, cursor, timeout)
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
        """Switch to another run of the DAG and return the change, as :meth:`poll` does.

        Raises
        ------
        RunNotFoundError
            There is no such run; the state stays as it was.
        """
        answer = self._request(self._retrying_client, run_id, None, 0.0)
        with self.lock:
            # Another thread may be polling the former run: its answer is dropped.
            self._epoch += 1
            self.state.focus(run_id)
            return self.state.apply(answer)

    def _request(self, client: StackClient, run_id: str, after: str | None, timeout: float) -> GridChanges:
        return client.get_grid_changes(self.state.dag_id, run_id, after=after, timeout=timeout)
