"""What users do to a run: answer its tasks, cancel it, clear and mark its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class UserActions:
    """The part of :class:`~temporal_airflow_nb.run.Run` that changes the run."""

    _call: Callable[..., dict[str, Any]]
    snapshot: Callable[[], Mapping[str, Any]]

    def respond(
        self,
        task_id: str,
        options: str | Sequence[str],
        params_input: Mapping[str, Any] | None = None,
        *,
        map_index: int = -1,
    ) -> None:
        """Answer a task that waits for a person: an approval, a choice, an entry.

        Parameters
        ----------
        task_id
            The task.
        options
            The chosen option, or several where the task allows it; ``"Approve"`` or ``"Reject"`` for an approval.
        params_input
            What is entered into the task's form, by the names of its params.
        map_index
            Which instance of a mapped task.

        Raises
        ------
        RunNotFoundError
            The task doesn't ask anything, or not yet.
        InvalidInputError
            The task doesn't take this answer, or it has been answered already.

        Examples
        --------
        >>> run.respond("approve_budget", "Approve")                    # doctest: +SKIP
        """
        chosen = [options] if isinstance(options, str) else list(options)
        self._call(
            "respond",
            task_id=task_id,
            map_index=map_index,
            options=chosen,
            params_input=dict(params_input or {}),
        )

    def cancel(self) -> str:
        """Cancel the run, as Airflow's "mark failed" does; returns its state.

        Running tasks are killed, after their ``on_kill`` has run; waiting ones are skipped; what is finished
        stays. The run goes on while it has teardown tasks to run.
        """
        return self._call("cancel")["state"]

    def clear(
        self,
        task_ids: str | Iterable[str] | None = None,
        *,
        map_index: int | Iterable[int] | None = None,
        upstream: bool = False,
        downstream: bool = False,
        only_failed: bool = False,
        latest_version: bool | None = None,
    ) -> pd.DataFrame:
        """Run tasks again, or the whole run; :meth:`wait` then waits for the new end.

        Parameters
        ----------
        task_ids
            Which tasks; all of the run if None.
        map_index
            Which instances of a mapped task; all if None.
        upstream, downstream
            Whether to clear the tasks before and after these as well.
        only_failed
            Whether to leave alone what hasn't failed.
        latest_version
            Whether the run goes on with the DAG as it is now; if None, the DAG and Airflow's settings say so.

        Returns
        -------
        DataFrame
            The task instances that were cleared, as in :attr:`tasks`. One that was running is killed first,
            after its ``on_kill`` has run.

        Raises
        ------
        RunNotFoundError
            The run has no such task, or no such map index.

        Examples
        --------
        >>> run.clear("load", downstream=True)               # doctest: +SKIP
        >>> run.wait()                                       # doctest: +SKIP
        'success'
        """
        return self._act(
            "clear",
            **_chosen(task_ids, map_index, upstream, downstream),
            only_failed=only_failed,
            latest_version=latest_version,
        )

    def mark(
        self,
        state: str,
        task_ids: str | Iterable[str] | None = None,
        *,
        map_index: int | Iterable[int] | None = None,
        upstream: bool = False,
        downstream: bool = False,
    ) -> pd.DataFrame:
        """Mark tasks, or the whole run, as succeeded, failed or skipped, whatever they do now.

        Parameters
        ----------
        state
            ``"success"``, ``"failed"``, or, for tasks, ``"skipped"``.
        task_ids
            Which tasks; the run itself if None.
        map_index
            Which instances of a mapped task; all if None.
        upstream, downstream
            Whether to mark the tasks before and after these as well.

        Returns
        -------
        DataFrame
            The task instances that have changed, as in :attr:`tasks`: the marked ones, and those below them
            that may run now. One that was running is killed, after its ``on_kill`` has run.

        Raises
        ------
        RunNotFoundError
            The run has no such task, or no such map index.
        InvalidInputError
            There is no such state, or the tasks are in it already.
        """
        return self._act("mark", state=state, **_chosen(task_ids, map_index, upstream, downstream))

    def _act(self, op: str, **body: Any) -> pd.DataFrame:
        from temporal_airflow_nb.frames import tasks_frame

        affected = {(task_id, map_index) for task_id, map_index in self._call(op, **body)["affected"]}
        snapshot = self.snapshot()
        tasks = [task for task in snapshot["tasks"] if (task["task_id"], task["map_index"]) in affected]
        return tasks_frame({**snapshot, "tasks": tasks})


def _chosen(
    task_ids: str | Iterable[str] | None,
    map_index: int | Iterable[int] | None,
    upstream: bool,
    downstream: bool,
) -> dict[str, Any]:
    """Return which tasks are meant, as the gateway takes it."""
    if task_ids is None and (map_index is not None or upstream or downstream):
        raise TypeError("map_index, upstream and downstream need task_ids")
    return {
        "task_ids": [task_ids] if isinstance(task_ids, str) else task_ids and list(task_ids),
        "map_indexes": [map_index] if isinstance(map_index, int) else map_index and list(map_index),
        "upstream": upstream,
        "downstream": downstream,
    }
