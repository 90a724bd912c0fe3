"""The frames of a whole stack: its runs, DAGs and pools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.errors import InvalidInputError, RunNotFoundError
from temporal_airflow_nb.frames.columns import (
    ANYTHING,
    FLAG,
    MOMENT,
    NUMBER,
    RUN_STATE,
    SOME_NUMBER,
    SPAN,
    TEXT,
    frame_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from temporal_airflow_nb.run import Client, Run

_RUNS = {
    "dag_id": TEXT,
    "run_id": TEXT,
    "state": RUN_STATE,
    "run_type": TEXT,
    "logical_date": MOMENT,
    "run_after": MOMENT,
    "queued_at": MOMENT,
    "start_date": MOMENT,
    "end_date": MOMENT,
    "duration": SPAN,
    "version": SOME_NUMBER,
    "note": TEXT,
}
_DAGS = {
    "dag_id": TEXT,
    "is_paused": FLAG,
    "schedule": TEXT,
    "next_run": MOMENT,
    "tags": ANYTHING,
    "owners": TEXT,
    "file": TEXT,
    "bundle": TEXT,
    "version": SOME_NUMBER,
    "last_run_id": TEXT,
    "last_run_state": RUN_STATE,
    "last_run_start": MOMENT,
    "has_import_errors": FLAG,
    "description": TEXT,
}
_POOLS = {
    "pool": TEXT,
    "slots": NUMBER,
    "running": NUMBER,
    "queued": NUMBER,
    "scheduled": NUMBER,
    "deferred": NUMBER,
    "open": SOME_NUMBER,
    "include_deferred": FLAG,
    "description": TEXT,
}


class RunsOfStack:
    """The runs of the stack in use: ``ta.runs``, to be called.

    Examples
    --------
    >>> import temporal_airflow_nb as ta                            # doctest: +SKIP
    >>> ta.runs("etl", state="failed")                              # doctest: +SKIP
    >>> ta.runs.latest("etl").wait()                                # doctest: +SKIP
    'success'
    """

    def __call__(
        self,
        dag_id: str | None = None,
        state: str | None = None,
        limit: int | None = 100,
        *,
        dtype_backend: str | None = None,
        client: Client | None = None,
    ) -> pd.DataFrame:
        """Return runs as a frame, newest first.

        Parameters
        ----------
        dag_id
            Of which DAG; of all if None.
        state
            In which state: ``"queued"``, ``"running"``, ``"success"`` or ``"failed"``; in any if None.
        limit
            How many at most; all if None.
        dtype_backend
            ``"pyarrow"`` for columns that Arrow holds.
        client
            The client of a stack; the one in use if None.

        Returns
        -------
        pandas.DataFrame
            ``dag_id``, ``run_id``, ``state`` (category), ``run_type``, ``logical_date``, ``run_after``,
            ``queued_at``, ``start_date``, ``end_date``, ``duration`` (missing until the run ends), ``version`` (of
            the DAG, at the run's start), ``note``.

        Raises
        ------
        DagNotFoundError
            There is no such DAG.
        InvalidInputError
            There is no such state, or ``limit`` isn't a number of runs.
        ServiceUnavailableError
            No stack is running.
        """
        if not (limit is None or (isinstance(limit, int) and limit > 0)):
            raise InvalidInputError(
                f"limit is {limit!r}, not a number of runs.", hint="Give 1 or more, or None for all."
            )
        answer = _client(client).call("runs_columns", dag_id=dag_id, state=state, limit=limit)
        return runs_frame(answer, dtype_backend=dtype_backend)

    def latest(self, dag_id: str | None = None, *, client: Client | None = None) -> Run:
        """Return the run that was created last.

        Parameters
        ----------
        dag_id
            Of which DAG; of all if None.
        client
            The client of a stack; the one in use if None.

        Raises
        ------
        DagNotFoundError
            There is no such DAG.
        RunNotFoundError
            There is no run yet.
        """
        from temporal_airflow_nb.run import Run

        asked = _client(client)
        found = asked.call("runs_columns", dag_id=dag_id, limit=1)["columns"]
        if not found["run_id"]:
            of = "There is no run yet." if dag_id is None else f"DAG {dag_id!r} has no run."
            raise RunNotFoundError(of, hint="Run it first.", dag_id=dag_id)
        return Run(asked, found["dag_id"][0], found["run_id"][0])

    def get(self, dag_id: str, run_id: str, *, client: Client | None = None) -> Run:
        """Return a run by its ids.

        Parameters
        ----------
        dag_id, run_id
            Which run.
        client
            The client of a stack; the one in use if None.

        Raises
        ------
        DagNotFoundError, RunNotFoundError
            There is no such DAG, or it has no such run.
        """
        from temporal_airflow_nb.run import Run

        run = Run(_client(client), dag_id, run_id)
        run.snapshot()
        return run

    def __repr__(self) -> str:
        return (
            "<temporal_airflow_nb.runs: call it for a frame, or .latest() or .get(dag_id, run_id) for a run>"
        )


runs = RunsOfStack()


def dags(*, dtype_backend: str | None = None, client: Client | None = None) -> pd.DataFrame:
    """Return the DAGs that Airflow knows, by id, those whose file is gone left out.

    Parameters
    ----------
    dtype_backend
        ``"pyarrow"`` for columns that Arrow holds; ``tags`` stay objects.
    client
        The client of a stack; the one in use if None.

    Returns
    -------
    pandas.DataFrame
        ``dag_id``, ``is_paused``, ``schedule``, ``next_run`` (when it is created), ``tags`` (list), ``owners``,
        ``file`` (in its ``bundle``), ``bundle``, ``version`` (the latest), ``last_run_id``, ``last_run_state``
        (category), ``last_run_start``, ``has_import_errors``, ``description``.

    Raises
    ------
    ServiceUnavailableError
        No stack is running.

    Examples
    --------
    >>> ta.dags().query("not is_paused")                            # doctest: +SKIP
    """
    return dags_frame(_client(client).call("dags"), dtype_backend=dtype_backend)


def pools(*, dtype_backend: str | None = None, client: Client | None = None) -> pd.DataFrame:
    """Return Airflow's pools and how their slots are used now, by name.

    Parameters
    ----------
    dtype_backend
        ``"pyarrow"`` for columns that Arrow holds.
    client
        The client of a stack; the one in use if None.

    Returns
    -------
    pandas.DataFrame
        ``pool``, ``slots`` (-1: without limit), ``running``, ``queued``, ``scheduled``, ``deferred``, ``open``
        (missing without limit), ``include_deferred``, ``description``.

    Raises
    ------
    ServiceUnavailableError
        No stack is running.
    """
    return pools_frame(_client(client).call("pools"), dtype_backend=dtype_backend)


def runs_frame(answer: Mapping[str, Any], *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return what the stack answers about its runs as a frame; see :meth:`RunsOfStack.__call__`."""
    frame = frame_of(answer["columns"], _RUNS, dtype_backend)
    frame["duration"] = (frame["end_date"] - frame["start_date"]).astype(frame["duration"].dtype)
    return frame


def dags_frame(answer: Mapping[str, Any], *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return what the stack answers about its DAGs as a frame; see :func:`dags`."""
    return frame_of(answer["columns"], _DAGS, dtype_backend)


def pools_frame(answer: Mapping[str, Any], *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return what the stack answers about its pools as a frame; see :func:`pools`."""
    return frame_of(answer["columns"], _POOLS, dtype_backend)


def _client(given: Client | None) -> Client:
    from temporal_airflow_nb import session

    return given if given is not None else session.client()
