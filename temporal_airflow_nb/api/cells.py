"""Run the DAG that a cell or a string defines, or write it to a file.

The magics and user code call these functions in the thread that executes cells; ``ta.aio`` calls them in other threads.
They check the arguments and fill in settings. ``api/submit.py`` does the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.dag_runs.conf import checked_conf
from temporal_airflow_nb.errors import InvalidInputError

if TYPE_CHECKING:
    from temporal_airflow_nb.dag_runs.backfill_runs import BackfillRuns
    from temporal_airflow_nb.dag_runs.run import Run


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
    created: Callable[[Run | BackfillRuns], None] | None = None,
) -> Run | BackfillRuns | None:
    """Run the DAG that some source defines, as ``%%temporal_dag`` does with its cell.

    Parameters
    ----------
    source
        Python code with a DAG. It may use what the notebook's cells have defined.
    name
        Name of the DAG file; the id of its DAG if omitted.
    dag_id
        The DAG to run, if the source defines several.
    conf
        The ``conf`` of the run.
    params
        Values for the params of the DAG. An unknown name is an error.
    wait
        Whether to wait for the end of the run; the setting ``wait`` if omitted.
    backfill
        First and last date. Airflow creates a run for each date of the DAG's schedule between them. Dates without a
        time zone are in UTC.
    write_to
        Path to which the DAG is also written as a plain Airflow file.
    force
        Whether to replace that file even if it was edited.
    view
        The view in a notebook: ``"grid"``, ``"graph"``, ``"gantt"`` or ``"none"``.
    run
        Whether to run the DAG. If False, it is only checked and stored.
    worker_lost
        Whether a try whose worker was lost is run again (``"rerun"``) or fails (``"fail"``).
    home
        State folder of the embedded stack; the stack in use if omitted.
    created
        Called with the run or runs as soon as they exist, so that you have them even if you interrupt the wait.

    Returns
    -------
    Run, BackfillRuns or None
        The run; the runs of a backfill; None with ``run=False``.

    Raises
    ------
    PreflightError
        The DAG can't be run as it is; nothing was started.
    DagFileError, DagNotFoundError
        The source isn't Python, can't be imported, or defines no DAG or several.
    InvalidConfError
        ``conf`` or ``params`` don't fit the params of the DAG.
    InvalidInputError
        Another argument is invalid.

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
        raise InvalidInputError(
            f"`name` must be a string, not {type(name).__name__}.", hint="For example: `name='etl'`."
        )
    options = submit.CellOptions(
        name=name,
        dag_id=dag_id,
        conf=checked_conf(conf),
        params=checked_conf(params, "params") or {},
        run=run,
        wait=settings.get("wait") if wait is None else wait,
        backfill=_parse_backfill(backfill),
        write_to=None if write_to is None else _parse_path("write_to", write_to),
        force=force,
        view=settings.choose("view", view, settings.VIEWS),
        worker_lost=settings.choose("worker_lost", worker_lost, settings.WORKER_LOST),
        home=None if home is None else os.fspath(home),
    )
    return submit.submit(source, options, ipython.current_shell(), created)


def write_dag(source: str, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write the DAG that some source defines, with the notebook code it uses, as an Airflow file.

    Parameters
    ----------
    source
        Python code with a DAG, as in a cell.
    path
        The file. It is an error if it exists and wasn't written by this function, or was edited since.
    force
        Whether to replace the file in that case.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    PreflightError, DagFileError
        The DAG can't be used.
    InvalidInputError
        The file can't be written, or was edited.
    """
    from temporal_airflow_nb.api import submit

    return submit.write(source, _parse_path("path", path), force=force)


def _parse_backfill(backfill: tuple[str | date, str | date] | None) -> tuple[str, str] | None:
    if backfill is None:
        return None
    if isinstance(backfill, str) or len(backfill) != 2:
        raise InvalidInputError(
            f"`backfill` must be a first and a last date, not {backfill!r}.",
            hint='For example: `backfill=("2026-01-01", "2026-01-07")`.',
        )
    start, end = backfill
    return _parse_date(start), _parse_date(end)


def _parse_path(name: str, path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidInputError(
            f"`{name}` must be a path, not {type(path).__name__}.", hint="Use a string or a `pathlib.Path`."
        )
    return Path(path).expanduser()


def _parse_date(text: str | date) -> str:
    # A datetime is an instance of `date`, too.
    if isinstance(text, date) and not isinstance(text, datetime):
        text = text.isoformat()
    try:
        # Before Python 3.11, `fromisoformat` doesn't know the suffix Z.
        moment = text if isinstance(text, datetime) else datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (AttributeError, ValueError):
        raise InvalidInputError(
            f"{text!r} isn't a date.",
            hint="Write it as `2026-01-31` or `2026-01-31T06:00+00:00`.",
            value=text,
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).isoformat()
