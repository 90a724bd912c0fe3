"""Runs the DAG of a cell or a text, and writes it as a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.dag_runs.conf import checked_conf
from temporal_airflow_nb.errors import InvalidInputError

if TYPE_CHECKING:
    from temporal_airflow_nb.dag_runs.run import Run
    from temporal_airflow_nb.dag_runs.run_list import Runs


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
    from temporal_airflow_nb.api import submit
    from temporal_airflow_nb.config import settings
    from temporal_airflow_nb.display import ipython

    if not isinstance(name, (str, type(None))):
        raise InvalidInputError(f"name must be a string, not {type(name).__name__}.")
    order = submit.CellOptions(
        name=name,
        dag_id=dag_id,
        conf=checked_conf(conf),
        params=checked_conf(params, "params") or {},
        run=run,
        wait=settings.get("wait") if wait is None else wait,
        backfill=_span(backfill),
        write_to=None if write_to is None else _path("write_to", write_to),
        force=force,
        view=settings.choose("view", view, settings.VIEWS),
        worker_lost=settings.choose("worker_lost", worker_lost, settings.WORKER_LOST),
        home=None if home is None else os.fspath(home),
    )
    return submit.submit(source, order, ipython.current_shell(), created)


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
    from temporal_airflow_nb.api import submit

    return submit.write(source, _path("path", path), force=force)


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
