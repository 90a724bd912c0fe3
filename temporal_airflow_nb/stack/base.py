"""The base class of all stacks.

A stack is an object in the user's process, such as a kernel or a command. Two classes exist: ``LocalStack`` for an
embedded stack, and ``ConnectedStack`` for a cluster. The services run in other processes; every method that needs them
sends a request through :attr:`Stack.client`. Arguments are checked here, before a request is sent.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from temporal_airflow_nb.dag_runs.conf import checked_conf
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.messages.requests import SubmitFile

if TYPE_CHECKING:
    from typing_extensions import Self

    from temporal_airflow_nb.client.protocol import StackClient
    from temporal_airflow_nb.dag_runs.run import Run
    from temporal_airflow_nb.messages.requests import WorkerLost

MODES = ("deep",)


class Stack(ABC):
    """Services that run DAGs. A context manager: entering starts them, leaving ends what entering started."""

    @property
    @abstractmethod
    def client(self) -> StackClient:
        """The client that carries out operations of this stack."""

    @property
    @abstractmethod
    def where(self) -> dict[str, Any]:
        """Addresses of the stack: ``airflow``, ``temporal``; ``profile`` or None; ``production``, a bool."""

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
            Which of the file's DAGs; may be omitted if there is one.
        conf
            The run's ``conf``: values for the DAG's params.
        params
            As ``conf``, but a name that the DAG's params don't have is an error.
        mode
            ``"deep"``: on Airflow's metadata database.
        run_id
            Id of the run; made from the time if omitted.
        logical_date
            The run's logical date, with a time zone; now if omitted.
        connections, variables
            Files with connections and variables for the tasks, as ``airflow connections export`` and ``airflow
            variables export`` write them.
        worker_lost
            What to do with a try whose worker was lost: ``"rerun"`` or ``"fail"``; the worker's setting if None.

        Raises
        ------
        DagFileError
            The file is missing or can't be imported.
        DagNotFoundError
            It has no such DAG, or has several and ``dag_id`` is omitted.
        InvalidConfError
            The DAG's params refuse ``conf`` or ``params``.
        PreflightError
            A check found an error in the DAG.

        Examples
        --------
        >>> with LocalStack() as stack:                      # doctest: +SKIP
        ...     stack.run("dags/etl.py", conf={"day": "2026-01-01"}).wait(timeout=60)
        'success'
        """
        from temporal_airflow_nb.dag_runs.run import Run

        _check_mode(mode)
        client = self.client
        submitted = client.submit_file(
            SubmitFile(
                _absolute(path, "path"),
                dag_id,
                conf=checked_conf(conf),
                params=checked_conf(params, "params"),
                # The gateway refuses other values.
                worker_lost=cast("WorkerLost | None", worker_lost),
                run_id=run_id,
                logical_date=_checked_date(logical_date),
                connections=None if connections is None else _absolute(connections, "connections"),
                variables=None if variables is None else _absolute(variables, "variables"),
            )
        )
        return Run(client, submitted["dag_id"], submitted["run_ids"][0])


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        known = ", ".join(map(repr, MODES))
        raise InvalidInputError(f"There is no mode {mode!r}.", hint=f"`mode` can be: {known}.", mode=mode)


def _absolute(path: str | os.PathLike[str], name: str) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name} must be a str or os.PathLike, not {type(path).__name__}")
    # The gateway reads the file, and its process may have another working directory. Symbolic links stay as they are.
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
