"""Run JupyterLab as a separate process, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOKEN = "browser-tests"
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Names that an attacker lets point to this machine.
    "--host-resolver-rules=MAP *.evil.example 127.0.0.1",
]


@dataclass
class Lab:
    """A running JupyterLab."""

    folder: Path
    address: str

    def url(self, notebook: str) -> str:
        """Return the address that opens a notebook in a new workspace."""
        return f"{self.address}/lab/tree/{notebook}?token={TOKEN}&reset"


@contextmanager
def jupyter_lab(root: Path, home: Path) -> Iterator[Lab]:
    """Start a JupyterLab with an empty folder and its own settings, whose kernels use the stack in ``home``."""
    folder = root / "notebooks"
    folder.mkdir()
    for plugin, values in SETTINGS.items():
        file = root / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    port = _free_port()
    env = {
        **os.environ,
        "TEMPORAL_AIRFLOW_HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(root / "config"),
        "JUPYTER_RUNTIME_DIR": str(root / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(root / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(root / "workspaces"),
    }
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={folder}",
        "--ServerApp.port_retries=0",
    ]
    with (root / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", server, root / "lab.log")
        yield Lab(folder, f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab isn't answering:\n{log.read_text()[-2000:]}")
