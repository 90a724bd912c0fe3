"""Connections to a configured Airflow and Temporal, in the place of an embedded stack.

A connection has one of three clients: that of a gateway on Airflow's database, in a private process; that of
Airflow's REST API; or that of Temporal alone. The connection itself is an object in the user's process, and
``current.use`` makes it the stack of all functions and magics. Closing a connection changes nothing in the cluster.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.client.gateway import GatewayClient
from temporal_airflow_nb.config import environment
from temporal_airflow_nb.config.temporal import (
    check_namespace,
    connect_client,
    connect_settings,
    is_configured,
)
from temporal_airflow_nb.errors import ServiceUnavailableError
from temporal_airflow_nb.stack import current, endpoints, processes, state_folder
from temporal_airflow_nb.stack.base import Stack
from temporal_airflow_nb.stack.manager import control
from temporal_airflow_nb.stack.state_folder import ServiceRow

if TYPE_CHECKING:
    from typing_extensions import Self

    from temporal_airflow_nb.client.protocol import StackClient
    from temporal_airflow_nb.dag_runs.run import Run
    from temporal_airflow_nb.messages.tables import Table

_CONNECT_SECONDS = 10.0
_NO_AIRFLOW = "none: Temporal only"


class _PrivateGateway:
    """A private process that has Airflow loaded, on the database that the environment configures."""

    def __init__(self, profile: str | None) -> None:
        self._home: Path | None = None
        self._ownership: control.StackOwnership | None = None
        # Without this variable, libpq waits for minutes for a server that drops packets.
        self._settings = {
            "PGCONNECT_TIMEOUT": os.environ.get("PGCONNECT_TIMEOUT") or f"{_CONNECT_SECONDS:.0f}"
        }
        if profile is not None:
            self._settings["TEMPORAL_PROFILE"] = profile

    def open(self) -> None:
        # The manager needs a state folder. With `--gateway-only` it deletes the folder when it ends.
        home = Path(tempfile.mkdtemp(prefix="temporal-airflow-"))
        state_folder.prepare_home(home)
        command = processes.python_command(control.MANAGER_MODULE, str(home), "--gateway-only")
        self._ownership = control.start_manager(home, detach=False, command=command, settings=self._settings)
        self._home = home

    def close(self) -> None:
        if self._home is not None:
            control.stop_stack(self._home)
            self._home = None
        if self._ownership is not None:
            self._ownership.release()
            self._ownership = None

    @property
    def services(self) -> list[ServiceRow]:
        return state_folder.read_stack(self._home).get("services", []) if self._home else []

    @property
    def client(self) -> StackClient | None:
        if self._home is None or not state_folder.manager_is_running(self._home):
            return None
        # Read each time: the manager has written the record before it reported that the stack is ready.
        gateway = state_folder.read_stack(self._home)["gateway"]
        return GatewayClient(gateway["address"], gateway["token"])


class _DirectClient:
    """A client in this process: that of the REST API, or that of Temporal."""

    def __init__(self, name: str, address: str, make: Callable[[], StackClient]) -> None:
        self._name, self._address, self._make = name, address, make
        self.client: StackClient | None = None

    def open(self) -> None:
        self.client = self._make()

    def close(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            client.close()

    @property
    def services(self) -> list[ServiceRow]:
        state = "running" if self.client is not None else "stopped"
        return [{"name": self._name, "state": state, "address": self._address, "pid": None}]


class ConnectedStack(Stack):
    """A connection to the Airflow and the Temporal that are configured; made by :func:`connect`.

    Parameters
    ----------
    profile
        A profile of Temporal's client settings.
    airflow
        Address of Airflow's REST API.
    production
        Patterns of profiles, namespaces and addresses that are production; as configured if omitted.
    """

    def __init__(
        self,
        profile: str | None = None,
        *,
        airflow: str | None = None,
        production: Sequence[str] | None = None,
    ) -> None:
        self._profile = profile
        self._settings = connect_settings(profile)
        address, namespace = self._settings["target_host"], self._settings["namespace"]
        service: _PrivateGateway | _DirectClient
        named = True
        if airflow is not None:
            from temporal_airflow_nb.client.rest.client import RestClient, base_address

            url = base_address(airflow)
            self._airflow, names = f"REST {endpoints.masked(url)}", endpoints.endpoint_names(url)
            named = is_configured(profile)
            events = self._events if named else None
            service = _DirectClient(
                "airflow", endpoints.masked(url), lambda: RestClient(airflow, events=events)
            )
        elif endpoints.database_is_configured(os.environ):
            url = endpoints.database_url(os.environ)
            self._airflow, names = f"database {url}", endpoints.endpoint_names(url)
            service = _PrivateGateway(profile)
        else:
            self._airflow, names = _NO_AIRFLOW, []
            service = _DirectClient("temporal", address, self._connect_temporal)
        self._service = service
        self._temporal_client: StackClient | None = None
        self._temporal = f"{address} / {namespace}" if named else "not configured"
        chosen = endpoints.profile_in_use(profile)
        self._where = {
            "airflow": self._airflow,
            "temporal": self._temporal,
            "profile": chosen,
            "production": endpoints.is_production(
                [chosen, namespace, address, *names], _patterns() if production is None else production
            ),
        }

    def __repr__(self) -> str:
        if self._service.client is None:
            return "ConnectedStack(closed)"
        profile = f", profile {self._where['profile']!r}" if self._where["profile"] else ""
        alarm = ", production" if self._where["production"] else ""
        return f"ConnectedStack(Airflow {self._airflow}, Temporal {self._temporal}{profile}{alarm})"

    def start(self) -> Self:
        """Connect; functions and magics use this connection from now on.

        Raises
        ------
        ServiceUnavailableError
            Temporal, Airflow or its database can't be reached.
        InvalidInputError
            A setting can't be used, or the REST API refuses the token.
        """
        if self._service.client is None:
            # A gateway without a worker connects to Temporal only when an operation needs it: a wrong address would
            # stay unnoticed until then.
            if isinstance(self._service, _PrivateGateway):
                _check_temporal(self._profile)
            self._service.open()
        current.use(self)
        return self

    def stop(self) -> None:
        """Close the connection. The cluster and its runs continue."""
        self._service.close()
        if self._temporal_client is not None:
            self._temporal_client.close()
        if current.is_connected() and current.current() is self:
            current.use(None)

    def status(self) -> dict[str, Any]:
        """Return the states of the connection's services, its addresses, and the variables that it uses."""
        names = (
            "AIRFLOW_HOME",
            "AIRFLOW_CONFIG",
            "TEMPORAL_ADDRESS",
            "TEMPORAL_NAMESPACE",
            "TEMPORAL_PROFILE",
        )
        env = {name: os.environ[name] for name in names if name in os.environ}
        if self._profile is not None:
            env["TEMPORAL_PROFILE"] = self._profile
        return {
            "services": self._service.services,
            "env": {**env, "TEMPORAL_TASK_QUEUE": environment.task_queue()},
            "where": self.where,
        }

    @property
    def where(self) -> dict[str, Any]:
        """The cluster's ``airflow`` and ``temporal`` addresses, its ``profile``, and whether it is ``production``."""
        return dict(self._where)

    @property
    def client(self) -> StackClient:
        """The open connection.

        Raises
        ------
        ServiceUnavailableError
            It isn't open.
        """
        client = self._service.client
        if client is None:
            raise ServiceUnavailableError(
                "Not connected.", hint="Use connect() to connect to the cluster.", service="worker"
            )
        if self._where["production"]:
            client.production = f"Temporal {self._temporal}, Airflow {self._airflow}"
        return client

    def trigger(
        self, dag_id: str, *, conf: Mapping[str, Any] | None = None, run_id: str | None = None
    ) -> Run:
        """Run a DAG that Airflow knows already, through the REST API.

        Parameters
        ----------
        dag_id
            The DAG.
        conf
            The run's ``conf``.
        run_id
            Id of the run; made by Airflow if None.

        Raises
        ------
        DagNotFoundError
            Airflow has no such DAG.
        UnavailableHereError
            The connection doesn't use the REST API.
        """
        from temporal_airflow_nb.dag_runs.run import Run

        client = self.client
        created = client.trigger_dag(dag_id, conf=dict(conf or {}), run_id=run_id)
        return Run(client, created["dag_id"], created["run_id"])

    @property
    def links(self) -> dict[str, str]:
        """The address of Airflow's UI by the name ``airflow``, where it is known."""
        if not self._airflow.startswith("REST "):
            return {}
        return {"airflow": self.client.address}

    def _events(self, dag_id: str, run_id: str) -> Table:
        """Return a run's events from Temporal, which the REST API doesn't have."""
        if self._temporal_client is None:
            self._temporal_client = self._connect_temporal()
        return self._temporal_client.get_events_table(dag_id, run_id)

    def _connect_temporal(self) -> StackClient:
        from temporal_airflow_nb.client.temporal.client import WorkflowClient

        client = WorkflowClient(self._profile)
        client.connect()
        return client


def connect(profile: str | None = None, *, airflow: str | None = None) -> ConnectedStack:
    """Connect to a configured Airflow and Temporal, in place of an embedded stack.

    Airflow is reached through its REST API if ``airflow`` is given; else through its database, if one is configured
    as for Airflow's own command line (``AIRFLOW_CONFIG``, ``AIRFLOW_HOME`` with an ``airflow.cfg``,
    ``AIRFLOW__DATABASE__SQL_ALCHEMY_CONN``); else not at all: runs are followed through Temporal then. The cluster's
    workers execute the runs.

    Parameters
    ----------
    profile
        A profile of ``temporal.toml``, with address, namespace, TLS or an API key; ``$TEMPORAL_PROFILE``, or
        ``default``, if omitted. ``TEMPORAL_*`` variables take precedence.
    airflow
        Address of Airflow: ``"https://airflow.example.com"``. The token is ``$AIRFLOW_API_TOKEN``, or Airflow is
        asked for one with ``$AIRFLOW_API_USER`` and ``$AIRFLOW_API_PASSWORD``.

    Returns
    -------
    ConnectedStack
        The connection, in use by functions and magics from now on; a context manager.

    Raises
    ------
    InvalidInputError
        There is no such profile, or a setting can't be used.
    ServiceUnavailableError
        Temporal, or Airflow, can't be reached.

    Examples
    --------
    >>> import temporal_airflow_nb as ta
    >>> with ta.connect(profile="staging") as cluster:        # doctest: +SKIP
    ...     cluster.run("dags/etl.py").wait()
    'success'
    """
    for name, value in (("profile", profile), ("airflow", airflow)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} must be a str or None, not {type(value).__name__}")
    return ConnectedStack(profile, airflow=airflow).start()


def _patterns() -> Sequence[str]:
    from temporal_airflow_nb.config import settings

    patterns: Sequence[str] = settings.get("production")
    return patterns


def _check_temporal(profile: str | None) -> None:
    """Raise if Temporal doesn't answer."""
    # In another thread: in a notebook, this thread has a running event loop already, in which `asyncio.run` fails.
    failure: list[BaseException] = []

    async def ask() -> None:
        await check_namespace(await connect_client(profile=profile, timeout=_CONNECT_SECONDS))

    def run() -> None:
        try:
            asyncio.run(ask())
        # Every error, because the calling thread raises it.
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="temporal-airflow-connect")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
