"""What the magics do, as functions: for scripts, other notebooks and other front ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb import session
from temporal_airflow_nb.conf import checked_conf
from temporal_airflow_nb.errors import InvalidInputError, RunNotFoundError, interruptible
from temporal_airflow_nb.links import Link, page
from temporal_airflow_nb.run import Run
from temporal_airflow_nb.similar import meant
from temporal_airflow_nb.stack_status import Status, status_of

if TYPE_CHECKING:
    from temporal_airflow_nb.run_list import Runs
    from temporal_airflow_nb.stack.local import LocalStack

_SEARCHED = 1000


def up(home: str | os.PathLike[str] | None = None, *, ui: bool = False, db: str | None = None) -> LocalStack:
    """Start the embedded stack of a state folder, or attach to it where it runs, and wait until it is ready.

    It ends with this process. The one of a notebook's kernel outlives a restart of the kernel.

    Parameters
    ----------
    home
        The state folder; as configured where left out.
    ui
        Whether Airflow's API server, scheduler and DAG processor run too.
    db
        ``"sqlite"`` or ``"postgres"``; what the folder has, or SQLite, where left out.

    Returns
    -------
    LocalStack
        The stack, in use from now on.

    Raises
    ------
    InvalidInputError
        The folder can't be used, or its stack runs without the UI, or has the other database.
    ServiceUnavailableError
        A service doesn't start.

    Examples
    --------
    >>> import temporal_airflow_nb as ta
    >>> ta.up()                                                      # doctest: +SKIP
    LocalStack('/home/ada/etl/.temporal_airflow', running)
    """
    stack = session.embedded(home)
    before = stack.ui, stack.db
    stack.ui, stack.db = ui, db
    try:
        session.start(stack)
    except BaseException:
        stack.ui, stack.db = before
        raise
    session.use(None if home is None else stack)
    return stack


def down(home: str | os.PathLike[str] | None = None) -> bool:
    """End the embedded stack of a state folder, whoever started it. Runs that haven't ended go on when it is up again.

    Parameters
    ----------
    home
        The state folder; that of the stack in use where left out.

    Returns
    -------
    bool
        Whether one ran.
    """
    from temporal_airflow_nb.notebook import live
    from temporal_airflow_nb.stack.local import LocalStack

    used = session.current(home)
    stack = used if isinstance(used, LocalStack) else session.embedded(home)
    was_running = stack.is_running
    if was_running:
        note = "The stack was ended; the run goes on when it is started again."
        live.close_all(note, stack.client.address)
    with interruptible("The stack goes on ending."):
        stack.stop()
    if stack is used:
        session.use(None)
    return was_running


def run_cell(
    source: str,
    *,
    name: str | None = None,
    dag_id: str | None = None,
    conf: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    wait: bool | None = None,
    backfill: tuple[str | date, str | date] | None = None,
    write_to: str | os.PathLike[str] | None = None,
    force: bool = False,
    view: str | None = None,
    run: bool = True,
    worker_lost: str | None = None,
    home: str | os.PathLike[str] | None = None,
    created: Callable[[Run | Runs], None] | None = None,
) -> Run | Runs | None:
    """Run the DAG that a text defines, as ``%%temporal_dag`` runs that of its cell.

    Parameters
    ----------
    source
        Python code with a DAG. It may use what the notebook's cells have defined.
    name
        Name of the DAG file; after its DAG where left out.
    dag_id
        Which DAG, if there are several.
    conf
        The run's ``conf``.
    params
        Values for the DAG's params; a name that the DAG hasn't got is an error.
    wait
        Whether to wait for the end.
    backfill
        First and last date: one run for each date of the DAG's schedule. Dates without a time zone are in UTC.
    write_to
        A path for the DAG as a plain Airflow file.
    force
        Whether that file may replace one that has been edited.
    view
        ``"grid"``, ``"graph"``, ``"gantt"`` or ``"none"``: what a notebook shows.
    run
        False: the DAG is checked and stored alone.
    worker_lost
        What becomes of a try whose worker was lost: ``"rerun"`` or ``"fail"``.
    home
        State folder of the embedded stack; the stack in use where left out.
    created
        Called with the run, or runs, as soon as there are any: who interrupts what comes then has them.

    Returns
    -------
    Run, Runs or None
        The run; the runs of a backfill; None with ``run=False``.

    Raises
    ------
    PreflightError
        The DAG can't be run as it is; nothing was started.
    DagFileError, DagNotFoundError
        It isn't Python, can't be imported, has no DAG, or several.
    InvalidConfError
        The DAG's params refuse ``conf`` or ``params``.
    InvalidInputError
        Another argument can't be used.

    Examples
    --------
    >>> import temporal_airflow_nb as ta
    >>> ta.run_cell(open("dags/etl.py").read(), wait=True).state     # doctest: +SKIP
    'success'
    """
    from temporal_airflow_nb.notebook import settings, shells, submit

    if not isinstance(name, (str, type(None))):
        raise InvalidInputError(f"name must be a string, not {type(name).__name__}.")
    order = submit.Order(
        name=name,
        dag_id=dag_id,
        conf=checked_conf(conf),
        params=checked_conf(params, "params") or {},
        run=run,
        wait=settings.get("wait") if wait is None else wait,
        backfill=_span(backfill),
        write_to=None if write_to is None else _path("write_to", write_to),
        force=force,
        view=_chosen("view", view, settings.VIEWS),
        worker_lost=_chosen("worker_lost", worker_lost, settings.WORKER_LOST),
        home=None if home is None else os.fspath(home),
    )
    return submit.submit(source, order, shells.present(), created)


def status(home: str | os.PathLike[str] | None = None) -> Status:
    """Return where you are: folder, addresses, versions, services, and whether it is production.

    Parameters
    ----------
    home
        The state folder of an embedded stack; the stack in use where left out.

    Returns
    -------
    Status
        A dict: ``services``, ``env``, ``where``, ``production``.

    Examples
    --------
    >>> ta.status()["services"][0]                                   # doctest: +SKIP
    {'name': 'temporal', 'state': 'running', 'address': '127.0.0.1:7233', 'pid': 4711}
    """
    return status_of(session.current(home))


def show(run: Run | str | None = None, *, view: str | None = None) -> Run:
    """Show a run in the output of the present cell, and follow it until it ends; outside a notebook print it.

    Parameters
    ----------
    run
        The run, its id, or a DAG's id for the DAG's latest run; the latest run of all where left out.
    view
        ``"grid"``, ``"graph"`` or ``"gantt"``.

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
    from temporal_airflow_nb.notebook import live, settings, shells

    shown = run if isinstance(run, Run) else find_run(run)
    chosen = _chosen("view", view, settings.VIEWS)
    shell = shells.present()
    if shell is None:
        from temporal_airflow_nb.display import text
        from temporal_airflow_nb.display.model import grid

        print(text.plain(grid(shown.snapshot())))
    elif chosen != "none":
        live.show(shown, chosen)
    return shown


def find_run(name: str | None = None) -> Run:
    """Return a run by its id, the latest of a DAG by the DAG's id, or the latest of all.

    Raises
    ------
    RunNotFoundError
        There is no such run.
    """
    if not isinstance(name, (str, type(None))):
        raise InvalidInputError(f"A run is named by a string, not by {name!r}.")
    client = session.client()
    known = client.call("runs", limit=_SEARCHED)["runs"]
    for found in known:
        if name in (None, found["dag_id"], found["run_id"]):
            return Run(client, found["dag_id"], found["run_id"])
    if name is None:
        raise RunNotFoundError("There is no run yet.", hint="Run a DAG first.")
    if older := client.call("runs", dag_id=name, limit=1)["runs"]:
        return Run(client, name, older[0]["run_id"])
    names = [text for found in known for text in (found["dag_id"], found["run_id"])]
    raise RunNotFoundError(
        f"There is no run, and no DAG with runs, of the name {name!r}.",
        hint=meant(name, names, "`ta.runs()` lists the runs."),
        run_id=name,
    )


def ui(name: str = "airflow") -> Link:
    """Return the address of Airflow's or Temporal's UI; a notebook shows it as a link.

    Parameters
    ----------
    name
        ``"airflow"`` or ``"temporal"``.

    Raises
    ------
    InvalidInputError
        There is no such UI, or the stack runs without it.
    """
    return page(name)


def write_dag(source: str, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write the DAG that a text defines as a plain Airflow file, with what it uses of the notebook.

    Parameters
    ----------
    source
        Python code with a DAG, as in a cell.
    path
        The file. One that isn't as a cell has left it is an error.
    force
        Whether to replace it all the same.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    PreflightError, DagFileError
        The DAG can't be used.
    InvalidInputError
        The path can't, or holds what somebody has edited.
    """
    from temporal_airflow_nb.notebook import submit

    return submit.write(source, _path("path", path), force=force)


def _chosen(name: str, value: str | None, choices: tuple[str, ...]) -> Any:
    from temporal_airflow_nb.notebook import settings

    if value is None:
        return settings.get(name)
    if value not in choices:
        raise InvalidInputError(
            f"There is no {name} {value!r}.", hint=f"Choose one of: {', '.join(choices)}.", value=value
        )
    return value


def _span(backfill: tuple[str | date, str | date] | None) -> tuple[str, str] | None:
    if backfill is None:
        return None
    if isinstance(backfill, str) or len(backfill) != 2:
        raise InvalidInputError(
            f"backfill is {backfill!r}, not a first and a last date.",
            hint='For example backfill=("2026-01-01", "2026-01-07").',
        )
    start, end = backfill
    return _moment(start), _moment(end)


def _path(name: str, path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidInputError(f"{name} must be a path, not {type(path).__name__}.")
    return Path(path).expanduser()


def _moment(text: str | date) -> str:
    if isinstance(text, date) and not isinstance(text, datetime):
        text = text.isoformat()
    try:
        moment = text if isinstance(text, datetime) else datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (AttributeError, ValueError):
        raise InvalidInputError(
            f"{text!r} isn't a date.", hint="Write it as 2026-01-31 or 2026-01-31T06:00+00:00.", value=text
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).isoformat()
