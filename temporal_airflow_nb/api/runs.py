"""Find, show and compare runs of the stack in use; list its DAGs and pools.

Called in the thread that executes cells, or in a thread of ``ta.aio``. Nothing is cached here: each call sends requests
through the client of the stack in use, or through the client that the caller passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporal_airflow_nb.dag_runs.run import Run
from temporal_airflow_nb.errors import InvalidInputError, RunNotFoundError
from temporal_airflow_nb.frames import Comparison, dags_frame, pools_frame, runs_frame
from temporal_airflow_nb.stack import current
from temporal_airflow_nb.suggestions import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from temporal_airflow_nb.client.protocol import StackClient

# Clients don't search for a run by its id alone. It is compared with the ids of so many of the latest runs.
_MAX_RUNS_SEARCHED = 1000


class RunCatalog:
    """The runs of the stack in use, available as ``ta.runs``.

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
        client: StackClient | None = None,
    ) -> pd.DataFrame:
        """Return runs as a data frame, newest first.

        Parameters
        ----------
        dag_id
            Only runs of this DAG; of all DAGs if None.
        state
            Only runs in this state: ``"queued"``, ``"running"``, ``"success"`` or ``"failed"``; in all states if None.
        limit
            Maximum number of runs; all if None.
        dtype_backend
            ``"pyarrow"`` for Arrow-backed columns.
        client
            The client of a stack; the one in use if None.

        Returns
        -------
        pandas.DataFrame
            ``dag_id``, ``run_id``, ``state`` (category), ``run_type``, ``logical_date``, ``run_after``,
            ``queued_at``, ``start_date``, ``end_date``, ``duration`` (missing until the run ends), ``version`` (that of
            the DAG when the run started), ``note``.

        Raises
        ------
        DagNotFoundError
            There is no such DAG.
        InvalidInputError
            There is no such state, or ``limit`` is less than 1.
        ServiceUnavailableError
            No stack is running.
        """
        if not (limit is None or (isinstance(limit, int) and limit > 0)):
            raise InvalidInputError(
                f"`limit` is {limit!r}, not a number of runs.", hint="Use 1 or more, or None for all."
            )
        answer = _client(client).get_runs_table(dag_id, state=state, limit=limit)
        return runs_frame(answer, dtype_backend=dtype_backend)

    def latest(self, dag_id: str | None = None, *, client: StackClient | None = None) -> Run:
        """Return the latest run.

        Parameters
        ----------
        dag_id
            Only runs of this DAG; of all DAGs if None.
        client
            The client of a stack; the one in use if None.

        Raises
        ------
        DagNotFoundError
            There is no such DAG.
        RunNotFoundError
            There is no run yet.
        """
        asked = _client(client)
        found = asked.get_runs_table(dag_id, limit=1)["columns"]
        if not found["run_id"]:
            message = "There is no run yet." if dag_id is None else f"DAG {dag_id!r} has no run."
            raise RunNotFoundError(message, hint="Run it first.", dag_id=dag_id)
        return Run(asked, found["dag_id"][0], found["run_id"][0])

    def get(self, dag_id: str, run_id: str, *, client: StackClient | None = None) -> Run:
        """Return a run by its ids.

        Parameters
        ----------
        dag_id, run_id
            The ids of the DAG and the run.
        client
            The client of a stack; the one in use if None.

        Raises
        ------
        DagNotFoundError, RunNotFoundError
            There is no such DAG, or it has no such run.
        """
        run = Run(_client(client), dag_id, run_id)
        run.snapshot()
        return run

    def __repr__(self) -> str:
        return (
            "<temporal_airflow_nb.runs: call it for a frame, or .latest() or .get(dag_id, run_id) for a run>"
        )


runs = RunCatalog()


def dags(*, dtype_backend: str | None = None, client: StackClient | None = None) -> pd.DataFrame:
    """Return the DAGs that Airflow knows, ordered by id, without those whose file was removed.

    Parameters
    ----------
    dtype_backend
        ``"pyarrow"`` for Arrow-backed columns, except ``tags``.
    client
        The client of a stack; the one in use if None.

    Returns
    -------
    pandas.DataFrame
        ``dag_id``, ``is_paused``, ``schedule``, ``next_run`` (the time at which it is created), ``tags`` (list),
        ``owners``, ``file`` (in its ``bundle``), ``bundle``, ``version`` (the latest), ``last_run_id``,
        ``last_run_state`` (category), ``last_run_start``, ``has_import_errors``, ``description``.

    Raises
    ------
    ServiceUnavailableError
        No stack is running.

    Examples
    --------
    >>> ta.dags().query("not is_paused")                            # doctest: +SKIP
    """
    return dags_frame(_client(client).get_dags_table(), dtype_backend=dtype_backend)


def pools(*, dtype_backend: str | None = None, client: StackClient | None = None) -> pd.DataFrame:
    """Return Airflow's pools and the present use of their slots, ordered by name.

    Parameters
    ----------
    dtype_backend
        ``"pyarrow"`` for Arrow-backed columns.
    client
        The client of a stack; the one in use if None.

    Returns
    -------
    pandas.DataFrame
        ``pool``, ``slots`` (-1 for no limit), ``running``, ``queued``, ``scheduled``, ``deferred``, ``open``
        (missing without limit), ``include_deferred``, ``description``.

    Raises
    ------
    ServiceUnavailableError
        No stack is running.
    """
    return pools_frame(_client(client).get_pools_table(), dtype_backend=dtype_backend)


def compare(a: Run, b: Run) -> Comparison:
    """Compare two runs: the states and durations of their tasks side by side.

    Parameters
    ----------
    a, b
        The runs, of one DAG or of different DAGs. A task that only one of them has is marked as such.

    Returns
    -------
    Comparison
        The comparison with its ``frame``. Notebooks show it as a picture.

    Raises
    ------
    RunNotFoundError
        A run was deleted.

    Examples
    --------
    >>> import temporal_airflow_nb as ta                            # doctest: +SKIP
    >>> slower = ta.compare(before, after).frame.query("ratio > 2") # doctest: +SKIP
    """
    for name, run in (("a", a), ("b", b)):
        if not isinstance(run, Run):
            raise TypeError(
                f"`{name}` must be a Run, such as `ta.runs.get(dag_id, run_id)`, not {type(run).__name__}."
            )
    return Comparison(a.snapshot(), b.snapshot())


def show(run: Run | str | None = None, *, view: str | None = None) -> Run:
    """Show a run in the output of the current cell and keep it up to date.

    Outside a notebook, it is printed once.

    Parameters
    ----------
    run
        The run, its id, or the id of a DAG for its latest run; the latest of all runs if omitted.
    view
        ``"grid"``, ``"graph"`` or ``"gantt"``; the setting ``view`` if omitted.

    Returns
    -------
    Run
        The run that is shown.

    Raises
    ------
    RunNotFoundError
        There is no such run.
    ServiceUnavailableError
        No stack is running.

    Examples
    --------
    >>> run = ta.show("etl")                    # after a restart of the kernel   # doctest: +SKIP
    """
    from temporal_airflow_nb.config import settings
    from temporal_airflow_nb.display import ipython
    from temporal_airflow_nb.live_grid import live

    shown = run if isinstance(run, Run) else find_run(run)
    first_view = settings.choose("view", view, settings.VIEWS)
    shell = ipython.current_shell()
    if shell is None:
        from temporal_airflow_nb.display import text
        from temporal_airflow_nb.display.model import build_grid

        print(text.render_text(build_grid(shown.snapshot())))
    elif first_view != "none":
        live.show(shown, first_view)
    return shown


def find_run(name: str | None = None) -> Run:
    """Return the run with an id, the latest run of a DAG, or the latest run of all.

    Raises
    ------
    RunNotFoundError
        There is no such run.
    """
    if not isinstance(name, (str, type(None))):
        raise InvalidInputError(
            f"The id of a run must be a string, not {name!r}.", hint="`ta.runs()` lists the runs."
        )
    client = current.client()
    known = client.list_runs(limit=_MAX_RUNS_SEARCHED)
    for found in known:
        if name in (None, found["dag_id"], found["run_id"]):
            return Run(client, found["dag_id"], found["run_id"])
    if name is None:
        raise RunNotFoundError("There is no run yet.", hint="Run a DAG first.")
    # The DAG may have runs, but none among the latest runs of all DAGs.
    if older := client.list_runs(name, limit=1):
        return Run(client, name, older[0]["run_id"])
    names = [text for found in known for text in (found["dag_id"], found["run_id"])]
    raise RunNotFoundError(
        f"There is no run and no DAG with runs that has the id {name!r}.",
        hint=did_you_mean(name, names, "`ta.runs()` lists the runs."),
        run_id=name,
    )


def _client(given: StackClient | None) -> StackClient:
    return given if given is not None else current.client()
