"""A door to a configured Airflow and Temporal: the user's own settings, and no service but a warm gateway."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb import config
from temporal_airflow_nb.errors import ServiceUnavailableError
from temporal_airflow_nb.stack import launch, processes, state
from temporal_airflow_nb.stack.base import Stack
from temporal_airflow_nb.stack.gateway_client import GatewayClient

if TYPE_CHECKING:
    from typing_extensions import Self


class ConnectedStack(Stack):
    """A gateway to the Airflow and the Temporal that the environment configures. See :func:`connect`."""

    def __init__(self) -> None:
        self._home: Path | None = None
        self._owner: launch.Owner | None = None

    def __repr__(self) -> str:
        return f"ConnectedStack({'connected' if self._home else 'closed'})"

    def start(self) -> Self:
        """Start the gateway, a private process that ends with this one."""
        if self._home is None:
            home = Path(tempfile.mkdtemp(prefix="temporal-airflow-"))
            state.prepare_home(home)
            command = processes.python_command(launch.KEEPER_MODULE, str(home), "--gateway-only")
            self._owner = launch.start_keeper(home, detach=False, command=command)
            self._home = home
        return self

    def stop(self) -> None:
        """End the gateway. The cluster and its runs go on."""
        if self._home is not None:
            stack = state.read_stack(self._home)
            if state.keeper_lives(self._home):
                launch.end_keeper(self._home, stack["keeper"]["pid"], stack["id"])
            self._home = None
        if self._owner is not None:
            self._owner.release()
            self._owner = None

    def status(self) -> dict[str, Any]:
        """Return the gateway's state, and the variables that say where Airflow and Temporal are."""
        services = state.read_stack(self._home).get("services", []) if self._home else []
        names = (
            "AIRFLOW_HOME",
            "AIRFLOW_CONFIG",
            "TEMPORAL_ADDRESS",
            "TEMPORAL_NAMESPACE",
            "TEMPORAL_PROFILE",
        )
        env = {name: os.environ[name] for name in names if name in os.environ}
        return {"services": services, "env": {**env, "TEMPORAL_TASK_QUEUE": config.task_queue()}}

    @property
    def client(self) -> GatewayClient:
        """Client of the gateway."""
        if self._home is None or not state.keeper_lives(self._home):
            raise ServiceUnavailableError(
                "Not connected.", hint="Use connect() to start a gateway to the cluster.", service="worker"
            )
        gateway = state.read_stack(self._home)["gateway"]
        return GatewayClient(gateway["address"], gateway["token"])


def connect() -> ConnectedStack:
    """Connect to the configured Airflow and Temporal cluster.

    Airflow is configured as for its own command line (``AIRFLOW_HOME``, ``AIRFLOW__SECTION__KEY``), Temporal
    by its standard variables and profiles (``TEMPORAL_ADDRESS``, ``TEMPORAL_PROFILE``). Runs are executed by
    the cluster's workers.

    Examples
    --------
    >>> import temporal_airflow_nb as ta
    >>> with ta.connect() as cluster:                         # doctest: +SKIP
    ...     cluster.run("dags/etl.py").wait()
    'success'
    """
    return ConnectedStack().start()
