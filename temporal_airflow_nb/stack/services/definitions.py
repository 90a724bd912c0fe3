"""Defines the services of a stack: the command, environment and readiness check of each.

The stack manager calls this module, which imports neither Airflow nor Temporal. Checks are called many times a second
in the manager's only thread: they must return soon.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from temporal_airflow_nb.config import environment
from temporal_airflow_nb.config.airflow_version import check_airflow
from temporal_airflow_nb.private_files import write_private
from temporal_airflow_nb.stack import processes, state_folder
from temporal_airflow_nb.stack.services import (
    airflow_config,
    airflow_services,
    database,
    ports,
    postgres,
    temporal_server,
)
from temporal_airflow_nb.stack.services.spec import Plan, Service
from temporal_airflow_nb.stack.state_folder import ServiceRow

WORKER_MODULE = "temporal_airflow_nb.gateway.process"
POSTGRES_MODULE = "temporal_airflow_nb.stack.services.postgres"
READY_FD = "TEMPORAL_AIRFLOW_READY_FD"
GATEWAY_ONLY = "TEMPORAL_AIRFLOW_GATEWAY_ONLY"
UI_PROXY = "TEMPORAL_AIRFLOW_UI_PROXY"
"""Host and port of the server of Temporal's UI, as JSON; set if the worker has to serve the UI."""
# Settings of this package. All other variables that begin with TEMPORAL_ describe another Temporal than the stack's.
_PACKAGE_SETTINGS = ("TEMPORAL_AIRFLOW_", "TEMPORAL_NATIVE_SCHEDULING", "TEMPORAL_SCHEDULE_ID_PREFIX")


def tool_env(
    home: Path, temporal: Mapping[str, str], airflow: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment variables with which Airflow's and Temporal's own tools reach the stack."""
    return {
        environment.HOME_VARIABLE: str(home),
        "AIRFLOW_HOME": str(airflow_config.airflow_home(home)),
        "AIRFLOW_CONFIG": str(airflow_config.config_path(home)),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url(home),
        **(airflow_services.settings(airflow, temporal) if airflow else {}),
        "TEMPORAL_ADDRESS": temporal["address"],
        "TEMPORAL_NAMESPACE": temporal["namespace"],
        "TEMPORAL_TASK_QUEUE": temporal["task_queue"],
        # The user's own profiles may contain TLS settings or an API key for another server.
        "TEMPORAL_CONFIG_FILE": str(temporal_profile(home)),
        "TEMPORAL_PROFILE": "default",
        "TEMPORAL_TLS": "false",
    }


def temporal_profile(home: Path) -> Path:
    """Return the path of the stack's own ``temporal.toml``."""
    return home / "temporal.toml"


def prepare(plan: Plan) -> None:
    """Write the files that the services of an embedded stack read, and check the settings that they read themselves."""
    environment.allowed_hosts()
    if plan.database == database.POSTGRES:
        database.record_postgres(plan.home, plan.ports["database"])
    airflow_config.prepare(plan.home)
    temporal_server.prepare(plan.home)
    settings = [f"{key} = {json.dumps(plan.temporal[key])}" for key in ("address", "namespace")]
    write_private(temporal_profile(plan.home), "\n".join(["[profile.default]", *settings, ""]))


def embedded_services(plan: Plan, worker_command: list[str] | None = None) -> list[Service]:
    """Return the services of an embedded stack in the order of their start.

    Each needs only those before it, so that the manager ends them in the reverse order.
    """
    services = [_temporal(plan)]
    if plan.database == database.POSTGRES:
        services.append(_postgres(plan))
    extra = tool_env(plan.home, plan.temporal, plan.airflow)
    environ = _embedded_environ()
    services.append(_worker(plan, environ, extra, worker_command))
    if plan.ui:
        env = {**environ, **processes.python_path(environ), **extra}
        version = check_airflow()
        services += airflow_services.airflow_services(plan, env, lambda: _is_migrated(plan, version))
    return services


def _is_migrated(plan: Plan, version: str) -> bool:
    # The migration may have been recorded at an earlier start: the database server may still be starting now.
    return airflow_config.is_migrated(plan.home, version) and _database_answers(plan)


def _database_answers(plan: Plan) -> bool:
    return plan.database == database.SQLITE or postgres.accepts_connections(plan.ports["database"])


def gateway_services(plan: Plan, worker_command: list[str] | None = None) -> list[Service]:
    """Return the only service of a connection to a configured Airflow: a gateway without a worker."""
    extra = {environment.HOME_VARIABLE: str(plan.home), GATEWAY_ONLY: "1"}
    return [_worker(plan, dict(os.environ), extra, worker_command)]


def _embedded_environ() -> dict[str, str]:
    kept = airflow_config.drop_conflicting_variables(os.environ)
    # Without a scheduler, no runs have to be handed over to Temporal; a stack with one sets the variable itself.
    kept.pop("AIRFLOW__CORE__ORCHESTRATOR", None)
    return {k: v for k, v in kept.items() if not k.startswith("TEMPORAL_") or k.startswith(_PACKAGE_SETTINGS)}


def _temporal(plan: Plan) -> Service:
    def is_ready(pid: int) -> bool:
        ready = ports.listens(pid, plan.ports["temporal"]) and temporal_server.is_ready(
            plan.ports["temporal_http"], plan.namespace, plan.http_host
        )
        # From now on the database is complete, even if the server is killed.
        if ready:
            temporal_server.record_database_created(plan.home)
        return ready

    return Service(
        name="temporal",
        command=temporal_server.command(
            temporal_server.find_program(),
            ports=plan.ports,
            namespace=plan.namespace,
            http_host=plan.http_host,
            ui_host=plan.temporal_ui_host,
        ),
        env={
            **_embedded_environ(),
            processes.STACK_ID_VARIABLE: plan.stack_id,
            # The program reads the user's profile otherwise, which may name another server.
            "TEMPORAL_CONFIG_FILE": os.devnull,
        },
        log=state_folder.log_path(plan.home, "temporal"),
        address=plan.temporal["address"],
        ports=tuple(
            port
            for name, port in plan.ports.items()
            if name.startswith("temporal") and not (name == "temporal_ui" and _has_ui_proxy(plan))
        ),
        grace=5.0,
        # The command names the database relative to this folder.
        cwd=plan.home,
        umask=0o077,
        is_ready=is_ready,
        serves_others=True,
    )


def _has_ui_proxy(plan: Plan) -> bool:
    """Return whether the worker serves Temporal's UI, in place of Temporal's own server."""
    return "temporal_ui" in plan.ports and plan.temporal_ui_host != ports.LOOPBACK


def _postgres(plan: Plan) -> Service:
    port = plan.ports["database"]
    environ = _embedded_environ()
    return Service(
        name="database",
        command=processes.python_command(POSTGRES_MODULE, str(plan.home), str(port)),
        env={**environ, **processes.python_path(environ), processes.STACK_ID_VARIABLE: plan.stack_id},
        log=state_folder.log_path(plan.home, "database"),
        address=database.address(plan.home),
        ports=(port,),
        grace=8.0,
        umask=0o077,
        # PostgreSQL's "fast shutdown", which doesn't wait until clients disconnect.
        stop_signal=signal.SIGINT,
        is_ready=lambda pid: ports.listens(pid, port) and postgres.accepts_connections(port),
        serves_others=True,
    )


def _worker(plan: Plan, environ: dict[str, str], extra: dict[str, str], command: list[str] | None) -> Service:
    ui_port = plan.ports["temporal_ui"] if _has_ui_proxy(plan) else None
    return Service(
        name="worker",
        command=command or processes.python_command(WORKER_MODULE, str(plan.home)),
        env={
            **environ,
            **processes.python_path(environ),
            **extra,
            processes.STACK_ID_VARIABLE: plan.stack_id,
            "TEMPORAL_AIRFLOW_GATEWAY_PORT": str(plan.ports["gateway"]),
            **({UI_PROXY: json.dumps([plan.temporal_ui_host, ui_port])} if ui_port is not None else {}),
        },
        log=state_folder.log_path(plan.home, "worker"),
        address=plan.gateway["address"],
        ports=(plan.ports["gateway"], *([ui_port] if ui_port is not None else [])),
        grace=8.0,
        # Without waiting for Temporal: the worker imports Airflow first, then connects as soon as the server answers.
        may_start=lambda: _database_answers(plan),
        has_offspring=True,
    )


def database_status(home: Path) -> ServiceRow:
    """Return the status row of a SQLite database, which has no process."""
    return {
        "name": "database",
        "state": "running" if database.sqlite_path(home).exists() else "stopped",
        "address": database.address(home),
        "pid": None,
    }
