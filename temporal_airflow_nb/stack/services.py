"""What runs in a stack: each service's command, environment and test of readiness."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporal_airflow_nb import config
from temporal_airflow_nb.stack import airflow_config, ports, processes, state, temporal_server

HOST_MODULE = "temporal_airflow_nb.stack.host"
READY_FD = "TEMPORAL_AIRFLOW_READY_FD"
GATEWAY_ONLY = "TEMPORAL_AIRFLOW_GATEWAY_ONLY"
GATEWAY_PORTS = ("gateway",)
EMBEDDED_PORTS = ("temporal", "temporal_ui", "temporal_http", "temporal_metrics", *GATEWAY_PORTS)


@dataclass(frozen=True)
class Service:
    """One process of a stack, as the keeper starts it."""

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
    is_ready: Callable[[int], bool] | None = None
    """Asked with the pid until true; None where the service reports to the descriptor in ``READY_FD``."""
    has_offspring: bool = False
    """Whether it leaves processes outside its group, to be found by the stack's marker."""


@dataclass(frozen=True)
class Plan:
    """The ports, secrets and names of one life of a stack."""

    home: Path
    marker: str
    ports: Mapping[str, int]
    token: str
    namespace: str = "default"
    task_queue: str = config.DEFAULT_TASK_QUEUE

    @property
    def gateway(self) -> dict[str, str]:
        """Where the gateway listens, and the token that it wants."""
        return {"address": f"{ports.LOOPBACK}:{self.ports['gateway']}", "token": self.token}

    @property
    def temporal(self) -> dict[str, str]:
        """Where the stack's Temporal server is, and the names that its workers use; empty without one."""
        if "temporal" not in self.ports:
            return {}
        return {
            "address": f"{ports.LOOPBACK}:{self.ports['temporal']}",
            "ui_address": f"{ports.LOOPBACK}:{self.ports['temporal_ui']}",
            "namespace": self.namespace,
            "task_queue": self.task_queue,
        }


def tool_env(home: Path, temporal: Mapping[str, str]) -> dict[str, str]:
    """Return the variables under which Airflow's and Temporal's own tools talk to the stack."""
    return {
        config.HOME_VARIABLE: str(home),
        "AIRFLOW_HOME": str(airflow_config.airflow_home(home)),
        "AIRFLOW_CONFIG": str(airflow_config.config_path(home)),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": airflow_config.database_url(home),
        "TEMPORAL_ADDRESS": temporal["address"],
        "TEMPORAL_NAMESPACE": temporal["namespace"],
        "TEMPORAL_TASK_QUEUE": temporal["task_queue"],
        # A profile of the user's own may hold TLS settings or an API key for another server.
        "TEMPORAL_CONFIG_FILE": str(temporal_profile(home)),
        "TEMPORAL_PROFILE": "default",
        "TEMPORAL_TLS": "false",
    }


def temporal_profile(home: Path) -> Path:
    """Return the stack's own file of Temporal client settings."""
    return home / "temporal.toml"


def write_temporal_profile(plan: Plan) -> None:
    """Write it."""
    settings = [f"{key} = {json.dumps(plan.temporal[key])}" for key in ("address", "namespace")]
    state.write_private(temporal_profile(plan.home), "\n".join(["[profile.default]", *settings, ""]))


def embedded(plan: Plan, host_command: list[str] | None = None) -> list[Service]:
    """Return the services of an embedded stack."""
    return [
        _temporal(plan),
        _host(plan, _embedded_environ(), tool_env(plan.home, plan.temporal), host_command),
    ]


def gateway_only(plan: Plan, host_command: list[str] | None = None) -> list[Service]:
    """Return the one service that a configured Airflow and Temporal need: a gateway with no worker in it."""
    extra = {config.HOME_VARIABLE: str(plan.home), GATEWAY_ONLY: "1"}
    return [_host(plan, dict(os.environ), extra, host_command)]


def _embedded_environ() -> dict[str, str]:
    kept = airflow_config.without_clashes(os.environ)
    return {
        k: v for k, v in kept.items() if not k.startswith("TEMPORAL_") or k.startswith("TEMPORAL_AIRFLOW_")
    }


def _temporal(plan: Plan) -> Service:
    def is_ready(pid: int) -> bool:
        return ports.listens(pid, plan.ports["temporal"]) and temporal_server.is_ready(
            plan.ports["temporal_http"], plan.namespace
        )

    return Service(
        name="temporal",
        command=temporal_server.command(
            temporal_server.find_program(), ports=plan.ports, namespace=plan.namespace
        ),
        env={**_embedded_environ(), processes.MARKER: plan.marker, "TEMPORAL_CONFIG_FILE": os.devnull},
        log=state.log_path(plan.home, "temporal"),
        address=plan.temporal["address"],
        ports=tuple(port for name, port in plan.ports.items() if name.startswith("temporal")),
        grace=5.0,
        cwd=plan.home,
        umask=0o077,
        is_ready=is_ready,
    )


def _host(plan: Plan, environ: dict[str, str], extra: dict[str, str], command: list[str] | None) -> Service:
    return Service(
        name="worker",
        command=command or processes.python_command(HOST_MODULE, str(plan.home)),
        env={
            **environ,
            **processes.python_path(environ),
            **extra,
            processes.MARKER: plan.marker,
            "TEMPORAL_AIRFLOW_GATEWAY_TOKEN": plan.token,
            "TEMPORAL_AIRFLOW_GATEWAY_PORT": str(plan.ports["gateway"]),
        },
        log=state.log_path(plan.home, "worker"),
        address=plan.gateway["address"],
        ports=(plan.ports["gateway"],),
        grace=8.0,
        has_offspring=True,
    )


def database_status(home: Path) -> dict[str, Any]:
    """Return the status row of Airflow's metadata database, which is a file and no process."""
    path = airflow_config.database_path(home)
    return {
        "name": "database",
        "state": "running" if path.exists() else "stopped",
        "address": airflow_config.database_url(home),
        "pid": None,
    }
