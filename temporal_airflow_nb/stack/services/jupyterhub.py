"""Addresses of the stack's UIs, as a browser reaches them, also on a JupyterHub."""

from __future__ import annotations

import os

from temporal_airflow_nb.config.environment import JUPYTERHUB_VARIABLE
from temporal_airflow_nb.stack.services.ports import LOOPBACK


def ui_url(port: int) -> str:
    """Return the address of a UI, without a slash at its end.

    On a hub it is a path of the hub's site. jupyter-server-proxy serves it and passes on the whole path, so that
    redirects and cookies of the UI need no translation. Elsewhere it is an address of this machine.

    Examples
    --------
    >>> ui_url(8233)                                        # doctest: +SKIP
    'http://127.0.0.1:8233'
    """
    prefix = os.environ.get(JUPYTERHUB_VARIABLE, "").rstrip("/")
    return f"{prefix}/proxy/absolute/{port}" if prefix else f"http://{LOOPBACK}:{port}"
