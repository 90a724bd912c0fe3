"""The addresses of Temporal's UI and of a workflow's page in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from temporal_airflow_nb.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

CLOUD = "https://cloud.temporal.io"
_CLOUD_HOSTS = (".tmprl.cloud", ".api.temporal.io")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DEV_SERVER_UI = 1000
"""The distance from the port of Temporal's development server to the port of its UI."""


def ui_url(address: str | None = None) -> str:
    """
    Return the address of Temporal's UI without a trailing slash; empty if unknown.

    Parameters
    ----------
    address
        The address of Temporal's service that a worker uses; ``$TEMPORAL_ADDRESS`` overrides it.

    Raises
    ------
    InvalidInputError
        ``[temporal_airflow] ui_url`` is neither an HTTP address nor an absolute path.
    """
    from airflow.configuration import conf

    configured: str = conf.get("temporal_airflow", "ui_url", fallback="").strip().rstrip("/")
    if configured:
        if not configured.startswith(("http://", "https://", "/")):
            raise InvalidInputError(
                f"The setting `[temporal_airflow] ui_url = {configured}` is no address.",
                hint="Begin it with http:// or https://, or with / for a path on the site of Airflow's UI.",
                value=configured,
            )
        return configured
    return service_ui(os.environ.get("TEMPORAL_ADDRESS") or address or "")


def service_ui(address: str) -> str:
    """Return the address of the UI of a Temporal service; empty if unknown.

    >>> service_ui("127.0.0.1:7233"), service_ui("etl.a1b2c.tmprl.cloud:7233"), service_ui("temporal.internal:7233")
    ('http://127.0.0.1:8233', 'https://cloud.temporal.io', '')
    """
    try:
        where = urlsplit(f"//{address}")
        host, port = where.hostname or "", where.port
    except ValueError:
        return ""
    if host.endswith(_CLOUD_HOSTS):
        return CLOUD
    if host in _LOOPBACK and port:
        return f"http://{f'[{host}]' if ':' in host else host}:{port + _DEV_SERVER_UI}"
    return ""


def workflow_url(ui: str, workflow: Mapping[Any, Any]) -> str:
    """Return the address of a workflow's page.

    ``workflow`` is a row of the table of workflows.

    >>> row = {"namespace": "default", "workflow_id": "airflow-a/b-c d", "temporal_run_id": "1-2"}
    >>> workflow_url("http://localhost:8233", row)
    'http://localhost:8233/namespaces/default/workflows/airflow-a%2Fb-c%20d/1-2/history'
    """
    names = (workflow["namespace"], workflow["workflow_id"], workflow["temporal_run_id"])
    namespace, workflow_id, run_id = (quote(name, safe="") for name in names)
    return f"{ui}/namespaces/{namespace}/workflows/{workflow_id}/{run_id}/history"
