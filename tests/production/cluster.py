"""A stock Airflow, a Temporal server and workers, each in its own processes as in production."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Mapping
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine, text

from benchmarks.airflow_api import AirflowApi, ApiError
from temporal_airflow_nb.stack import processes
from temporal_airflow_nb.stack.services import ports, temporal_server
from tests.production import services
from tests.production.services import Service
from tests.support.stack_helpers import in_a_loop
from tests.support.waiting import until

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ORCHESTRATOR = "temporal_airflow_nb.orchestrator.TemporalOrchestrator"
TIMEOUT = 120.0

SETTINGS: dict[str, dict[str, str]] = {
    "core": {
        "executor": "LocalExecutor",
        "parallelism": "8",
        "load_examples": "False",
        "dags_are_paused_at_creation": "False",
        "simple_auth_manager_all_admins": "True",
        "fernet_key": "",
    },
    "api": {"workers": "1"},
    "scheduler": {"scheduler_idle_sleep_time": "0.4"},
    "dag_processor": {"refresh_interval": "5", "parsing_processes": "1"},
    # A task that has to stop learns of it at its next heartbeat.
    "workers": {"min_heartbeat_interval": "1", "execution_api_timeout": "60"},
}

# Seconds until a process that can't write to SQLite gives up. The API server's event loop may block on a write while a
# request that only this loop can finish has the write lock.
LOCK_TIMEOUTS = {"api-server": 5}
LOCK_TIMEOUT = 60


class Cluster:
    """
    All processes of a production Airflow, with their files in one folder.

    Parameters
    ----------
    folder
        The folder of all files; created if missing.
    dags
        DAG files, or folders of DAG files, to copy into the cluster's DAG folder.
    database_url
        Airflow's database; SQLite in the folder if omitted.
    schedulers, workers
        The number of processes of each.
    triggerer
        Whether Airflow's triggerer runs, for deferred tasks of runs that Airflow executes.
    plugins
        A folder to copy into ``plugins``.
    settings
        Overrides for ``airflow.cfg``, by section and option.
    managed
        Whether Temporal executes the runs.
    path
        The path below which Airflow is served.

    Examples
    --------
    >>> with Cluster(tmp_path, dags=[DAGS]) as cluster:        # doctest: +SKIP
    ...     run_id = cluster.trigger("etl")
    ...     assert cluster.wait_for_end("etl", run_id) == "success"
    """

    def __init__(
        self,
        folder: Path,
        *,
        dags: Iterable[Path] = (),
        database_url: str | None = None,
        schedulers: int = 1,
        workers: int = 1,
        triggerer: bool = False,
        plugins: Path | None = None,
        settings: Mapping[str, Mapping[str, str]] | None = None,
        managed: bool = True,
        path: str = "",
    ) -> None:
        self.folder = Path(folder).absolute()
        self.dags_folder = self.folder / "dags"
        self.traces = self.folder / "traces"
        for needed in (self.folder, self.traces, self.folder / "temporal", self.folder / "tmp"):
            needed.mkdir(parents=True, exist_ok=True)
        _copy(dags, self.dags_folder)
        if plugins is not None:
            _copy([plugins], self.folder / "plugins")
        self.ports = ports.choose(
            ["airflow", "temporal", "temporal_ui", "temporal_http", "temporal_metrics"],
        )
        self.url = f"http://{ports.LOOPBACK}:{self.ports['airflow']}{path}"
        self.on_sqlite = database_url is None
        self.database_url = database_url or f"sqlite:///{self.folder / 'airflow.db'}?timeout={LOCK_TIMEOUT}"
        self.engine = create_engine(self.database_url, poolclass=NullPool)
        self._settings = settings or {}
        self._secrets = {name: secrets.token_hex(32) for name in ("secret_key", "jwt_secret")}
        self.server = AirflowApi(self.url, retry_for=TIMEOUT)
        self.managed = managed
        self.stack_id = uuid.uuid4().hex
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "TEMPORAL_"))}
        self.environment = {
            **inherited,
            **processes.python_path(inherited),
            processes.STACK_ID_VARIABLE: self.stack_id,
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW_CONFIG": str(self.folder / "airflow.cfg"),
            "TEMPORAL_ADDRESS": f"{ports.LOOPBACK}:{self.ports['temporal']}",
            "TEMPORAL_NAMESPACE": "default",
            "TEMPORAL_CONFIG_FILE": os.devnull,
            "TMPDIR": str(self.folder / "tmp"),
            "TRACES": str(self.traces),
        }
        self.services = {service.name: service for service in self._services(schedulers, workers, triggerer)}

    def __enter__(self) -> Cluster:
        try:
            self.start_all()
        except BaseException:
            self.stop_all()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop_all()

    # Processes

    def _services(self, schedulers: int, workers: int, triggerer: bool) -> list[Service]:
        def airflow(name: str, command: str, *options: str) -> Service:
            env = dict(self.environment)
            if self.on_sqlite:
                timeout = LOCK_TIMEOUTS.get(command, LOCK_TIMEOUT)
                url = f"sqlite:///{self.folder / 'airflow.db'}?timeout={timeout}"
                env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = url
            return Service(name, [sys.executable, "-m", "airflow", command, *options], env, self.folder)

        address = ("--host", ports.LOOPBACK, "--port", str(self.ports["airflow"]))
        worker = [sys.executable, "-m", "temporal_airflow_nb.cli.main", "worker"]
        server = temporal_server.command(
            temporal_server.find_program(), ports=self.ports, namespace="default"
        )
        return [
            Service("temporal", server, self.environment, self.folder / "temporal"),
            airflow("api-server", "api-server", *address),
            *(airflow(name, "scheduler", "--skip-serve-logs") for name in _names("scheduler", schedulers)),
            airflow("dag-processor", "dag-processor"),
            *([airflow("triggerer", "triggerer", "--skip-serve-logs")] if triggerer else []),
            *(Service(name, worker, self.environment, self.folder) for name in _names("worker", workers)),
        ]

    def start_all(self) -> None:
        """Migrate the database, start all services, and wait until they are ready."""
        self.write_config()
        self.start("temporal")
        self.airflow("db", "migrate")
        if self.on_sqlite:
            with self.engine.connect() as connection:
                # Without WAL, readers block writers: for minutes on a busy machine.
                connection.execute(text("PRAGMA journal_mode=WAL"))
        self.start(*(name for name in self.services if name != "temporal"))
        self.wait_until_ready()
        self.wait_until_parsed()

    def wait_until_ready(self) -> None:
        """Wait until all running services are ready."""
        until(self._is_ready, f"the services are ready\n{self.tails()}", TIMEOUT)

    def _is_ready(self) -> bool:
        self.check_services()
        temporal, api = self.services["temporal"], self.services["api-server"]
        if temporal.is_running and not temporal_server.is_ready(self.ports["temporal_http"], "default"):
            return False
        if api.is_running:
            try:
                health = self.server.ask_once("GET", "/api/v2/monitor/health")
            except (ApiError, OSError):
                return False
            scheduler = any(s.is_running for n, s in self.services.items() if n.startswith("scheduler"))
            if scheduler and health["scheduler"]["status"] != "healthy":
                return False
        running = [s for n, s in self.services.items() if n.startswith("worker") and s.is_running]
        return all(service.output().count("Working for") for service in running)

    def wait_until_parsed(self) -> None:
        """Wait until the DAG processor knows every DAG file."""
        expected = {str(path) for path in self.dags_folder.glob("*.py") if not path.name.startswith("_")}

        def parsed() -> bool:
            self.check_services()
            errors = self.query("SELECT filename, stacktrace FROM import_error")
            assert not errors, "\n".join(f"{row['filename']}: {row['stacktrace']}" for row in errors)
            rows = self.query(
                "SELECT fileloc FROM dag JOIN serialized_dag ON dag.dag_id = serialized_dag.dag_id"
            )
            return expected <= {row["fileloc"] for row in rows}

        until(parsed, "every DAG file is parsed", TIMEOUT)

    def start(self, *names: str) -> None:
        """Start services without waiting for them; see :meth:`wait_until_ready`."""
        for name in names:
            self.services[name].start()

    def stop(self, *names: str) -> None:
        """Stop services and wait until they have ended."""
        services.stop([self.services[name] for name in names])

    def kill(self, *names: str) -> None:
        """End services and all of their processes as if their machine had died."""
        for name in names:
            self.services[name].kill()

    def restart(self, *names: str) -> None:
        """Stop and start services, and wait until they are ready."""
        self.stop(*names)
        self.start(*names)
        self.wait_until_ready()

    def heal(self) -> None:
        """Start the services that don't run, and wait until all are ready."""
        if ended := [name for name, service in self.services.items() if not service.is_running]:
            self.start(*ended)
            self.wait_until_ready()

    def stop_all(self) -> None:
        """End every process of the cluster, with those that killed services have left."""
        services.stop(list(self.services.values()))
        processes.kill_all(self.stack_id)
        self.engine.dispose()

    def check_services(self) -> None:
        """Raise an error if a service has ended by itself."""
        for service in self.services.values():
            ended = service.process is not None and not service.is_running
            assert not ended, f"{service.name} has ended\n{service.tail()}"

    def logs(self, name: str) -> str:
        """Return the whole output of a service."""
        return self.services[name].log.read_text(errors="replace")

    def tails(self) -> str:
        """Return the end of the output of each service."""
        return "\n".join(service.tail() for service in self.services.values())

    def pids(self, kind: str) -> set[int]:
        """Return the ids of all current and former processes of a kind of service, such as ``worker``."""
        return {pid for name, s in self.services.items() if name.startswith(kind) for pid in s.pids}

    # Configuration

    def write_config(self, **settings: Mapping[str, str]) -> None:
        """Write ``airflow.cfg``; ``settings``, by section, override the others."""
        bundle = {
            "name": "dags",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(self.dags_folder), "refresh_interval": 5},
        }
        cluster_settings: dict[str, dict[str, str]] = {
            "core": {
                "dags_folder": str(self.dags_folder),
                "plugins_folder": str(self.folder / "plugins"),
                "execution_api_server_url": f"{self.url}/execution/",
                **({"orchestrator": ORCHESTRATOR} if self.managed else {}),
            },
            "database": {"sql_alchemy_conn": self.database_url},
            "api": {"base_url": self.url, "secret_key": self._secrets["secret_key"]},
            "api_auth": {"jwt_secret": self._secrets["jwt_secret"]},
            "logging": {
                "base_log_folder": str(self.folder / "logs"),
                "dag_processor_child_process_log_directory": str(self.folder / "logs" / "dag_processor"),
            },
            "dag_processor": {"dag_bundle_config_list": json.dumps([bundle])},
        }
        parser = RawConfigParser()
        for layer in (SETTINGS, cluster_settings, self._settings, settings):
            for section, options in layer.items():
                if not parser.has_section(section):
                    parser.add_section(section)
                for option, value in options.items():
                    parser.set(section, option, value.replace("%", "%%"))
        with (self.folder / "airflow.cfg").open("w", encoding="utf-8") as file:
            parser.write(file)

    # What a user does

    def airflow(self, *arguments: str, check: bool = True) -> str:
        """Run ``airflow`` with these arguments and return what it printed."""
        return self.run_python("-m", "airflow", *arguments, check=check)

    def run_python(self, *arguments: str, check: bool = True) -> str:
        """Run Python in the cluster's environment and return what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        command = " ".join(arguments[:6])
        assert done.returncode == 0 or not check, f"{command} failed:\n{done.stdout}\n{done.stderr[-3000:]}"
        return done.stdout

    def api(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return what ``/api/v2/{path}`` answers; see :class:`~benchmarks.airflow_api.AirflowApi`."""
        return self.server.call(method, path, body)

    def trigger(self, dag_id: str, run_id: str | None = None, **body: Any) -> str:
        """Create a run through the REST API; return its id."""
        run_id = run_id or f"run-{uuid.uuid4().hex[:8]}"
        self.api("POST", f"dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None, **body})
        return run_id

    def pause(self, dag_id: str, paused: bool = True) -> None:
        """Pause or unpause a DAG."""
        self.api("PATCH", f"dags/{dag_id}", {"is_paused": paused})

    # Through the REST API

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return a run as the REST API describes it."""
        return self.api("GET", f"dags/{dag_id}/dagRuns/{quoted(run_id)}")

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return a run's state."""
        return self.run(dag_id, run_id)["state"]

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return a DAG's runs, oldest first."""
        return self.api("GET", f"dags/{dag_id}/dagRuns?order_by=id&limit=100")["dag_runs"]

    def instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return a run's task instances as the REST API describes them."""
        found = self.api("GET", f"dags/{dag_id}/dagRuns/{quoted(run_id)}/taskInstances?limit=100")
        return sorted(found["task_instances"], key=lambda ti: (ti["task_id"], ti["map_index"]))

    def tasks(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Return the state of each task by its id; mapped instances have ``[map_index]`` after it."""
        return {task_key(ti): ti["state"] for ti in self.instances(dag_id, run_id)}

    def wait_for_end(self, dag_id: str, run_id: str) -> str:
        """Wait for the end of a run; return its state."""

        def state() -> str | None:
            found = self.run_state(dag_id, run_id)
            return found if found in ("success", "failed") else None

        return self.wait_for(state, f"the end of {dag_id} {run_id}")

    def wait_for(self, condition: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
        """Wait until ``condition`` holds, as long as no service ends; return what it returned."""

        def holds() -> Any:
            self.check_services()
            return condition()

        return until(holds, what, timeout)

    # Through the database, files and Temporal

    def query(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of a query of Airflow's database."""
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(statement), parameters).mappings()]

    def executions(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the lines that a run's tasks wrote when they started: see ``dags/_tracing.py``."""
        path = self.traces / dag_id / quoted(run_id)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @staticmethod
    def is_alive(line: Mapping[str, Any]) -> bool:
        """Return whether the process that wrote a line of :meth:`executions` still runs."""
        return processes.is_alive(line["process"])

    def gate(self, dag_id: str, name: str = "open") -> Path:
        """Return the file that lets waiting tasks go on once it exists: of a DAG, or ``RUN_ID.open`` of one run."""
        path = self.traces / dag_id / quoted(name)
        path.parent.mkdir(exist_ok=True)
        return path

    def temporal(self, use: Callable[[Any], Any]) -> Any:
        """Call an async function with a Temporal client, and return its result."""
        from temporalio.client import Client

        async def call() -> Any:
            return await use(await Client.connect(self.environment["TEMPORAL_ADDRESS"]))

        return in_a_loop(call())


def quoted(name: str) -> str:
    """Quote a name for the path of a URL."""
    return urllib.parse.quote(name, safe="")


def task_key(ti: Mapping[str, Any]) -> str:
    """Return the id of a task instance, with ``[map_index]`` if it is mapped."""
    return ti["task_id"] if ti["map_index"] < 0 else f"{ti['task_id']}[{ti['map_index']}]"


def _names(kind: str, count: int) -> list[str]:
    return [kind if number == 1 else f"{kind}-{number}" for number in range(1, count + 1)]


def _copy(sources: Iterable[Path], into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, into, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy2(source, into)
