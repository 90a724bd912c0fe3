"""What a stack is to be: its services, and the ports, secrets and names of one life of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from temporal_airflow_nb.config import environment
from temporal_airflow_nb.stack.services import ports
from temporal_airflow_nb.stack.services.database import POSTGRES, SQLITE
from temporal_airflow_nb.stack.services.jupyterhub import ui_url

GATEWAY_PORTS = ("gateway",)
TEMPORAL_PORTS = ("temporal", "temporal_ui", "temporal_http", "temporal_metrics")


@dataclass(frozen=True)
class Service:
    """One process of a stack, as the manager starts it."""

    name: str
    command: list[str]
    env: dict[str, str] = field(repr=False)
    log: Path
    address: str
    ports: tuple[int, ...]
    grace: float
    """Seconds between asking it to end and killing it."""
    cwd: Path | None = None
    umask: int = -1
    stop_signal: int = signal.SIGTERM
    may_start: Callable[[], bool] | None = None
    """Asked until true before it is started; None where it needs none of the others for that."""
    is_ready: Callable[[int], bool] | None = None
    """Asked with the pid until true; None where the service reports to the descriptor in ``READY_FD``."""
    serves_others: bool = False
    """Whether the others need it for as long as they are ending."""
    has_offspring: bool = False
    """Whether it leaves processes outside its group, to be found by the stack's stack_id."""


@dataclass(frozen=True)
class Plan:
    """The ports, secrets and names of one life of a stack."""

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
        """Where the gateway listens, and the token that it wants."""
        return {"address": self.address("gateway"), "token": self.token}

    @property
    def temporal(self) -> dict[str, str]:
        """Where the stack's Temporal server is, and the names that its workers use; empty without one."""
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
        """Where the stack's Airflow has its API server and UI; empty without one."""
        if not self.ui:
            return {}
        return {"address": self.address("airflow_ui"), "ui_url": ui_url(self.ports["airflow_ui"])}

    def address(self, port: str) -> str:
        """Return the address of a port by its name."""
        return f"{ports.LOOPBACK}:{self.ports[port]}"


def port_names(*, embedded: bool, ui: bool, database: str) -> tuple[str, ...]:
    """Return what a stack needs ports for."""
    if not embedded:
        return GATEWAY_PORTS
    return (
        *TEMPORAL_PORTS,
        *GATEWAY_PORTS,
        *(("airflow_ui",) if ui else ()),
        *(("database",) if database == POSTGRES else ()),
    )
