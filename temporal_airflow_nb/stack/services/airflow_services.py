"""Airflow's own processes of a stack with Airflow's UI: API server, scheduler and DAG processor.

They start when the worker has migrated the database. Only the API server listens on a port; its health endpoint also
reports the heartbeats of the other two. The stack manager defines the services with this module and calls their
readiness checks in its only thread; other processes call :func:`mark_unhealthy` to show the state of a stack.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from temporal_airflow_nb.config.environment import ORCHESTRATOR, OWN_PAGES_VARIABLE
from temporal_airflow_nb.stack import processes, state_folder
from temporal_airflow_nb.stack.services import airflow_config, database, ports
from temporal_airflow_nb.stack.services.spec import Plan, Service
from temporal_airflow_nb.stack.state_folder import ServiceRow

API_SERVER = "api-server"
SCHEDULER = "scheduler"
DAG_PROCESSOR = "dag-processor"
NAMES = (API_SERVER, SCHEDULER, DAG_PROCESSOR)

# While the services start, the checks of all three read the same endpoint in each round of the manager.
_CACHE_SECONDS = 0.25
_HEARTBEAT_KEYS = {SCHEDULER: "scheduler", DAG_PROCESSOR: "dag_processor"}
_DEFAULTS = {
    # The scheduler starts a run in one iteration of its loop: a shorter sleep starts runs sooner.
    SCHEDULER: {
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        # Limit of task processes for DAGs that Temporal doesn't execute. They are started only when tasks need them.
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__SCHEDULER__MP_START_METHOD": "spawn",
    },
    DAG_PROCESSOR: {
        # Seconds between two searches for new files. Each search would write a page of statistics at level INFO.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    },
}
# Seconds that SQLite waits for its write lock, in place of 5. The scheduler ends when its wait is over.
_SQLITE_TIMEOUT_SECONDS = {SCHEDULER: 60, DAG_PROCESSOR: 60}


def settings(airflow: Mapping[str, str], temporal: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that all processes of a stack with Airflow's UI share."""
    url = airflow["ui_url"]
    return {
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{airflow['address']}{urlsplit(url).path}/execution/",
        "AIRFLOW__CORE__ORCHESTRATOR": ORCHESTRATOR,
        # The scheduler starts runs that are due: a DAG that appears stays paused until a user runs or unpauses it.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__TEMPORAL_AIRFLOW__UI_URL": temporal["ui_url"],
    }


def airflow_services(plan: Plan, env: Mapping[str, str], may_start: Callable[[], bool]) -> list[Service]:
    """Return the services. ``env`` is the worker's environment; ``may_start`` returns whether they may start."""
    health = Health(plan.ports["airflow_ui"])
    return [
        _service(
            plan, API_SERVER, ["--host", ports.LOOPBACK, *_server_options(plan)], env, may_start, health
        ),
        _service(plan, SCHEDULER, ["--skip-serve-logs"], env, may_start, health),
        _service(plan, DAG_PROCESSOR, _bundle_options(plan.home), env, may_start, health),
    ]


def command(name: str, *options: str) -> list[str]:
    """Return the command of one of Airflow's processes."""
    return processes.python_command("temporal_airflow_nb.stack.services.airflow_main", name, *options)


def dag_processor_command(home: Path) -> list[str]:
    """Return the command of the DAG processor for the folders that are watched now."""
    return command(DAG_PROCESSOR, *_bundle_options(home))


def _server_options(plan: Plan) -> list[str]:
    return ["--port", str(plan.ports["airflow_ui"]), "--workers", "1"]


def _bundle_options(home: Path) -> list[str]:
    # Without names the processor would parse the folders of files that were only run, too, and `sync_bundles_to_db`
    # would deactivate the bundles that were registered after its start.
    return [option for name in airflow_config.watched_bundles(home) for option in ("--bundle-name", name)]


def _service(
    plan: Plan,
    name: str,
    options: list[str],
    env: Mapping[str, str],
    may_start: Callable[[], bool],
    health: Health,
) -> Service:
    # Some of Airflow's processes set a title with `setproctitle`, which by default overwrites the environment that
    # other processes see. `SPT_NOENV` prevents that: the stack's id has to stay visible.
    environ = {**_DEFAULTS.get(name, {}), **env, processes.STACK_ID_VARIABLE: plan.stack_id, "SPT_NOENV": "1"}
    if plan.database == database.SQLITE and name in _SQLITE_TIMEOUT_SECONDS:
        url = f"{database.url(plan.home)}?timeout={_SQLITE_TIMEOUT_SECONDS[name]}"
        environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = url
    if name == DAG_PROCESSOR:
        # As in a stock Airflow: a script in a watched folder that doesn't mention DAGs isn't imported.
        environ["AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE"] = "True"
    is_server = name == API_SERVER
    if is_server:
        environ[OWN_PAGES_VARIABLE] = "1"
    return Service(
        name=name,
        command=command(name, *options),
        env=environ,
        log=state_folder.log_path(plan.home, name),
        address=plan.address("airflow_ui") if is_server else "",
        ports=(plan.ports["airflow_ui"],) if is_server else (),
        grace=8.0,
        may_start=may_start,
        is_ready=lambda pid: health.serves(pid) if is_server else health.has_sent_heartbeat(name, pid),
        has_offspring=not is_server,
    )


def mark_unhealthy(rows: list[ServiceRow], port: int) -> None:
    """Set the state of services that run but have sent no heartbeat for too long to ``unhealthy``."""
    unhealthy = Health(port).find_unhealthy()
    for row in rows:
        if row["name"] in unhealthy and row["state"] == "running":
            row["state"] = "unhealthy"


HealthAnswer = dict[str, dict[str, str | None]]
"""Status and latest heartbeat of the database, the scheduler and the DAG processor, as Airflow reports them."""


class Health:
    """
    Reads the health endpoint of Airflow's API server.

    Parameters
    ----------
    port
        The API server's port.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._asked_at = 0.0
        self._answer: HealthAnswer = {}

    def serves(self, pid: int) -> bool:
        """Return whether this process is the API server, and reaches the database."""
        return (
            ports.listens(pid, self.port) and self.fetch().get("metadatabase", {}).get("status") == "healthy"
        )

    def has_sent_heartbeat(self, name: str, pid: int) -> bool:
        """Return whether this process has sent a heartbeat."""
        heartbeat = (
            self.fetch().get(_HEARTBEAT_KEYS[name], {}).get(f"latest_{_HEARTBEAT_KEYS[name]}_heartbeat")
        )
        try:
            # An older heartbeat comes from the process before this one.
            return (
                heartbeat is not None
                and datetime.fromisoformat(heartbeat).timestamp() > psutil.Process(pid).create_time()
            )
        except psutil.NoSuchProcess:
            return False

    def find_unhealthy(self) -> set[str]:
        """Return the names of the processes that have sent no heartbeat for too long."""
        answer = self.fetch()
        if not answer:
            return {API_SERVER}
        return {
            name for name, key in _HEARTBEAT_KEYS.items() if answer.get(key, {}).get("status") != "healthy"
        }

    def fetch(self) -> HealthAnswer:
        """Return the endpoint's answer, which may be a quarter of a second old; ``{}`` without an answer."""
        if time.monotonic() - self._asked_at >= _CACHE_SECONDS:
            self._answer = self._request()
            self._asked_at = time.monotonic()
        return self._answer

    def _request(self) -> HealthAnswer:
        # A short time, because the manager does nothing else while it waits.
        connection = http.client.HTTPConnection(ports.LOOPBACK, self.port, timeout=2)
        try:
            connection.request("GET", "/api/v2/monitor/health")
            response = connection.getresponse()
            return dict(json.loads(response.read())) if response.status == 200 else {}
        # The server is starting, or ends in the middle of its answer.
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        finally:
            connection.close()
