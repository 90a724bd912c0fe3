"""What every kind of stack offers: runs of DAG files, by way of its gateway."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.dag_runs.conf import checked_conf
from temporal_airflow_nb.errors import InvalidInputError

if TYPE_CHECKING:
    from typing_extensions import Self

    from temporal_airflow_nb.client.protocol import Client
    from temporal_airflow_nb.dag_runs.run import Run

MODES = ("deep",)


class Stack(ABC):
    """Services that run DAGs. A context manager: entering starts, leaving ends what entering started."""

    @property
    @abstractmethod
    def client(self) -> Client:
        """What operations are called through: the client of the stack's gateway, mostly."""

    @property
    @abstractmethod
    def where(self) -> dict[str, Any]:
        """Where the stack is: ``airflow``, ``temporal`` (texts), ``profile`` (or None), ``production`` (a bool)."""

    @abstractmethod
    def start(self) -> Self:
        """Start the services and wait until they are ready."""

    @abstractmethod
    def stop(self) -> None:
        """End the services."""

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """Return ``{"services": [...], "env": {...}}``, as ``temporal-airflow status`` prints it for JSON."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def run(
        self,
        path: str | os.PathLike[str],
        *,
        dag_id: str | None = None,
        conf: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        mode: str = "deep",
        run_id: str | None = None,
        logical_date: datetime | None = None,
        connections: str | os.PathLike[str] | None = None,
        variables: str | os.PathLike[str] | None = None,
        worker_lost: str | None = None,
    ) -> Run:
        """Run a DAG of a file; returns as soon as the run is created.

        Parameters
        ----------
        path
            The DAG file.
        dag_id
            Which of the file's DAGs; may be left out where there is one.
        conf
            The run's ``conf``: values for the DAG's params.
        params
            The same, but that a name which the DAG hasn't got is an error.
        mode
            ``"deep"``: on Airflow's metadata database.
        run_id
            Id of the run; made from the time where left out.
        logical_date
            The run's logical date, with a time zone; now where left out.
        connections, variables
            Files with the connections and variables that the tasks ask for, as ``airflow connections export``
            and ``airflow variables export`` write them.
        worker_lost
            What becomes of a try whose worker was lost: ``"rerun"`` or ``"fail"``; as the worker is set if None.

        Raises
        ------
        DagFileError
            The file is missing or can't be imported.
        DagNotFoundError
            It has no such DAG, or several and ``dag_id`` doesn't say which.
        InvalidConfError
            The DAG's params refuse ``conf`` or ``params``.
        PreflightError
            The DAG can't be run as it is.

        Examples
        --------
        >>> with LocalStack() as stack:                      # doctest: +SKIP
        ...     stack.run("dags/etl.py", conf={"day": "2026-01-01"}).wait(timeout=60)
        'success'
        """
        from temporal_airflow_nb.dag_runs.run import Run

        _check_mode(mode)
        answer = self.client.call(
            "submit",
            path=_absolute(path, "path"),
            dag_id=dag_id,
            conf=checked_conf(conf),
            params=checked_conf(params, "params"),
            worker_lost=worker_lost,
            run_id=run_id,
            logical_date=_checked_date(logical_date),
            connections=None if connections is None else _absolute(connections, "connections"),
            variables=None if variables is None else _absolute(variables, "variables"),
        )
        return Run(self.client, answer["dag_id"], answer["run_id"])


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        known = ", ".join(map(repr, MODES))
        raise InvalidInputError(f"There is no mode {mode!r}.", hint=f"`mode` can be: {known}.", mode=mode)


def _absolute(path: str | os.PathLike[str], name: str) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name} must be a str or os.PathLike, not {type(path).__name__}")
    return str(Path(path).expanduser().absolute())


def _checked_date(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        raise TypeError(f"logical_date must be a datetime, not {type(moment).__name__}")
    if moment.tzinfo is None:
        raise InvalidInputError(
            f"logical_date {moment.isoformat()} has no time zone.",
            hint="Give it one: logical_date.replace(tzinfo=datetime.timezone.utc)",
            logical_date=moment.isoformat(),
        )
    return moment.isoformat()
