"""Native Airflow on this machine, with all its services, for measurements and comparisons."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import psutil

from benchmarks.airflow_api import AirflowApi, ApiError
from benchmarks.processes import end_all, family

DEFAULT_SETTINGS: dict[str, dict[str, str]] = {
    "core": {
        "executor": "LocalExecutor",
        "load_examples": "False",
        "dags_are_paused_at_creation": "False",
        "simple_auth_manager_all_admins": "True",
    },
    # A DAG with a schedule would otherwise get runs that no test has started.
    "scheduler": {"use_job_schedule": "False"},
}

# Seconds until a service that can't write gives up. The API server's event loop may wait for a request that only it
# can finish, and the caller repeats the request; any other service would end with the error.
LOCK_TIMEOUTS = {"api-server": 5}
LOCK_TIMEOUT = 60
RETRY_FOR = 60


class NativeAirflowError(RuntimeError):
    """Native Airflow didn't start, or didn't do what it should."""


class NativeAirflow:
    """Stock Airflow with LocalExecutor on SQLite, in a separate folder.

    Parameters
    ----------
    home
        Folder for ``AIRFLOW_HOME``; created if it doesn't exist.
    bundles
        DAG folder by bundle name.
    settings
        Overrides for ``airflow.cfg``, by section and option.
    environment
        Extra environment of every process.
    triggerer
        Whether to run a triggerer too.

    Examples
    --------
    >>> with NativeAirflow(tmp_path, {"dags": folder}) as native:        # doctest: +SKIP
    ...     native.trigger("etl", "first")
    ...     native.wait([("etl", "first")], timeout=60)
    """

    def __init__(
        self,
        home: Path,
        bundles: Mapping[str, Path],
        *,
        settings: Mapping[str, Mapping[str, str]] | None = None,
        environment: Mapping[str, str] | None = None,
        triggerer: bool = False,
    ) -> None:
        self.home = Path(home).absolute()
        self.bundles = {name: Path(folder).absolute() for name, folder in bundles.items()}
        self.database = self.home / "airflow.db"
        self.logs = self.home / "logs"
        self._settings = settings or {}
        self._services = ["api-server", "scheduler", "dag-processor", *(["triggerer"] if triggerer else [])]
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self._api = AirflowApi(self._url, retry_for=RETRY_FOR)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW__", "TEMPORAL_"))}
        self.environment = {
            **inherited,
            **(environment or {}),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONFIG": str(self.home / "airflow.cfg"),
            "TMPDIR": str(self.home / "tmp"),
        }

    def __enter__(self) -> NativeAirflow:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self, *, timeout: float = 180) -> None:
        """Migrate the database, start the services and wait until every DAG file is parsed."""
        (self.home / "tmp").mkdir(parents=True, exist_ok=True)
        self._write_config()
        self.cli("db", "migrate")
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            # Without WAL, a reader keeps other processes from writing, for minutes on a busy machine.
            database.execute("PRAGMA journal_mode=WAL")
        for service in self._services:
            self._start_service(service)
        deadline = time.monotonic() + timeout
        self._wait_until(self._api_answers, "the API server doesn't answer", deadline)
        self._wait_until(self._all_parsed, "some DAG files aren't parsed yet", deadline)

    def stop(self) -> None:
        """End every started process and its descendants."""
        roots = list(self._started.values())
        self._started.clear()
        end_all([root.pid for root in roots])
        for root in roots:
            with contextlib.suppress(subprocess.TimeoutExpired):
                root.wait(10)

    def cli(self, *arguments: str) -> str:
        """Run ``airflow`` with these arguments and return its output."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NativeAirflowError(f"airflow {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
        return done.stdout

    def trigger(
        self,
        dag_id: str,
        run_id: str,
        *,
        logical_date: str | None = None,
        conf: Mapping[str, Any] | None = None,
    ) -> None:
        """Trigger a run through the REST API, as a user or the UI does."""
        body = {"dag_run_id": run_id, "logical_date": logical_date, "conf": dict(conf or {})}
        self.change("POST", dag_id, "dagRuns", body)

    def change(self, method: str, dag_id: str, path: str, body: Mapping[str, Any]) -> None:
        """Change a DAG through the REST API; ``path`` follows ``/api/v2/dags/{dag_id}/``."""
        self._api.call(method, f"dags/{urllib.parse.quote(dag_id, safe='')}/{path}", body)

    def answer(
        self, dag_id: str, run_id: str, task_id: str, map_index: int, answer: Mapping[str, Any]
    ) -> None:
        """Answer a task that waits for a person, through the REST API."""
        run, task = (urllib.parse.quote(name, safe="") for name in (run_id, task_id))
        path = f"dagRuns/{run}/taskInstances/{task}/{map_index}/hitlDetails"
        self.change("PATCH", dag_id, path, dict(answer))

    def wait(self, runs: Iterable[tuple[str, str]], *, timeout: float, poll: float = 0.25) -> None:
        """Block until all of these ``(dag_id, run_id)`` have ended."""
        waiting = set(runs)
        deadline = time.monotonic() + timeout
        while True:
            with self.connect() as connection:
                ended = connection.execute(
                    "SELECT dag_id, run_id FROM dag_run WHERE state IN ('success', 'failed')"
                )
                waiting -= set(ended)
            if not waiting:
                return
            self.check_services()
            if time.monotonic() > deadline:
                raise NativeAirflowError(
                    f"not finished after {timeout:.0f} s: {sorted(waiting)}\n{self._tails()}"
                )
            time.sleep(poll)

    @contextlib.contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        """Open the metadata database for reading."""
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)
        try:
            yield connection
        finally:
            connection.close()

    def dag_ids(self, path: Path) -> list[str]:
        """Return the ids of the DAGs that a file of a bundle defines, sorted."""
        with self.connect() as connection:
            rows = connection.execute("SELECT dag_id, fileloc FROM dag").fetchall()
        return sorted(dag_id for dag_id, fileloc in rows if Path(fileloc) == Path(path))

    def processes(self) -> list[psutil.Process]:
        """Return all running processes of this Airflow."""
        return family(root.pid for root in self._started.values())

    def _write_config(self) -> None:
        bundles = [
            {
                "name": name,
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(folder), "refresh_interval": 3600},
            }
            for name, folder in self.bundles.items()
        ]
        settings = {
            "core": {
                "dags_folder": str(self.home / "dags"),
                "execution_api_server_url": f"{self._url}/execution/",
                "fernet_key": "",
            },
            "database": {"sql_alchemy_conn": f"sqlite:///{self.database}"},
            "api": {"base_url": self._url, "secret_key": secrets.token_hex(16)},
            "api_auth": {"jwt_secret": secrets.token_hex(32)},
            "logging": {"base_log_folder": str(self.logs)},
            "dag_processor": {"dag_bundle_config_list": json.dumps(bundles)},
        }
        parser = RawConfigParser()
        for layer in (DEFAULT_SETTINGS, settings, self._settings):
            for section, options in layer.items():
                if not parser.has_section(section):
                    parser.add_section(section)
                for option, value in options.items():
                    parser.set(section, option, value.replace("%", "%%"))
        with (self.home / "airflow.cfg").open("w", encoding="utf-8") as file:
            parser.write(file)

    def _start_service(self, service: str) -> None:
        options = {
            "api-server": ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"],
            "scheduler": ["--skip-serve-logs"],
            "triggerer": ["--skip-serve-logs"],
        }
        timeout = LOCK_TIMEOUTS.get(service, LOCK_TIMEOUT)
        database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}?timeout={timeout}"}
        with (self.home / f"{service}.log").open("wb") as log:
            self._started[service] = subprocess.Popen(
                [sys.executable, "-m", "airflow", service, *options.get(service, [])],
                env={**self.environment, **database},
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_until(self, condition: Any, complaint: str, deadline: float) -> None:
        while not condition():
            self.check_services()
            if time.monotonic() > deadline:
                raise NativeAirflowError(f"{complaint}\n{self._tails()}")
            time.sleep(0.2)

    def check_services(self) -> None:
        """Raise an error if a service has ended."""
        for service, process in self._started.items():
            if process.poll() is not None:
                raise NativeAirflowError(f"{service} ended with {process.returncode}\n{self._tail(service)}")

    def _api_answers(self) -> bool:
        try:
            self._api.ask_once("GET", "/api/v2/version")
        except (ApiError, OSError):
            return False
        return True

    def _all_parsed(self) -> bool:
        expected = {file for folder in self.bundles.values() for file in folder.glob("*.py")}
        expected = {file for file in expected if file.name != "__init__.py"}
        with self.connect() as connection:
            errors = connection.execute("SELECT filename, stacktrace FROM import_error").fetchall()
            parsed = connection.execute(
                "SELECT fileloc FROM dag JOIN serialized_dag USING (dag_id)",
            ).fetchall()
        if errors:
            raise NativeAirflowError("\n".join(f"{name}: {trace}" for name, trace in errors))
        return expected <= {Path(fileloc) for (fileloc,) in parsed}

    def _tail(self, service: str) -> str:
        log = self.home / f"{service}.log"
        return f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" if log.exists() else ""

    def _tails(self) -> str:
        return "\n".join(self._tail(service) for service in self._services)


def free_port() -> int:
    """Return an unused loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def remove_folder(folder: Path) -> None:
    """Delete a native home after its processes have ended."""
    shutil.rmtree(folder, ignore_errors=True)
