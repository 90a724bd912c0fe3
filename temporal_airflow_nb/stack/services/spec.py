"""The plan of a stack, from which the stack manager starts it: its services, ports, secrets and names."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from temporal_airflow_nb.config import environment
from temporal_airflow_nb.stack.services import ports
from temporal_airflow_nb.stack.services.database import POSTGRES, SQLITE
from temporal_airflow_nb.stack.services.jupyterhub import ui_url

GATEWAY_PORTS = ("gateway",)
TEMPORAL_PORTS = ("temporal", "temporal_ui", "temporal_http", "temporal_metrics")


@dataclass(frozen=True)
class Service:
    """One service of a stack: its command and environment, and how the manager checks and ends it."""

    name: str
    command: list[str]
    env: dict[str, str] = field(repr=False)
    log: Path
    address: str
    ports: tuple[int, ...]
    grace: float
    """Seconds between the signal to end and SIGKILL."""
    cwd: Path | None = None
    umask: int = -1
    stop_signal: int = signal.SIGTERM
    may_start: Callable[[], bool] | None = None
    """Called until it returns True, and then the service is started; None to start it at once."""
    is_ready: Callable[[int], bool] | None = None
    """Called with the pid until it returns True; None if the service reports on the descriptor in ``READY_FD``."""
    serves_others: bool = False
    """Whether the other services need this one while they end."""
    has_offspring: bool = False
    """Whether it starts processes outside its own group. They are found by the stack's id."""


@dataclass(frozen=True)
class Plan:
    """The ports, secrets and names of a stack from one start to its end."""

    home: Path
    stack_id: str
    ports: Mapping[str, int]
    token: str
    namespace: str = "default"
    task_queue: str = environment.DEFAULT_TASK_QUEUE
    ui: bool = False
    """Whether Airflow's own processes run too."""
    database: str = SQLITE

    @property
    def gateway(self) -> dict[str, str]:
        """The gateway's address, and the token that each request needs."""
        return {"address": self.address("gateway"), "token": self.token}

    @property
    def http_host(self) -> str:
        """The only host name for which Temporal's HTTP API answers. No web page can guess it."""
        return f"{self._derive('http').hex()}.invalid"

    @cached_property
    def temporal_ui_host(self) -> str:
        """
        The address on which the server of Temporal's UI listens, behind the worker's proxy.

        No web page can guess it. Where the system has one loopback address only, it is that one: there is no proxy.
        """
        host = f"127.{'.'.join(str(1 + byte % 253) for byte in self._derive('ui')[:3])}"
        return host if ports.can_listen_on(host) else ports.LOOPBACK

    def _derive(self, purpose: str) -> bytes:
        return hashlib.sha256(f"{purpose} {self.token}".encode()).digest()

    @property
    def temporal(self) -> dict[str, str]:
        """Addresses of the stack's Temporal server, its namespace and task queue; empty without a server."""
        if "temporal" not in self.ports:
            return {}
        return {
            "address": self.address("temporal"),
            "ui_url": ui_url(self.ports["temporal_ui"]),
            "namespace": self.namespace,
            "task_queue": self.task_queue,
        }

    @property
    def airflow(self) -> dict[str, str]:
        """Addresses of Airflow's API server and UI; empty if the stack runs without them."""
        if not self.ui:
            return {}
        return {"address": self.address("airflow_ui"), "ui_url": ui_url(self.ports["airflow_ui"])}

    def address(self, port: str) -> str:
        """Return the address with the port of this name."""
        return f"{ports.LOOPBACK}:{self.ports[port]}"


def port_names(*, embedded: bool, ui: bool, database: str) -> tuple[str, ...]:
    """Return the names of the ports that a stack needs."""
    if not embedded:
        return GATEWAY_PORTS
    return (
        *TEMPORAL_PORTS,
        *GATEWAY_PORTS,
        *(("airflow_ui",) if ui else ()),
        *(("database",) if database == POSTGRES else ()),
    )
