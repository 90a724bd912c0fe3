"""Tests of the files in ``binder/`` and of the UIs below a hub's path; ``binder/check.py`` tests the whole image."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from binder.pages import Visitor
from temporal_airflow_nb import LocalStack
from temporal_airflow_nb.config.environment import JUPYTERHUB_VARIABLE
from temporal_airflow_nb.stack.services import jupyterhub, ports, temporal_server
from temporal_airflow_nb.stack.services.spec import TEMPORAL_PORTS
from tests.support.paths import ROOT
from tests.support.waiting import until

BINDER = ROOT / "binder"
PREFIX = "/user/some@body/"
TOKEN = "hub-tests"
DAG = """
from airflow.sdk import DAG, task

with DAG("greeting", schedule=None):

    @task
    def hello():
        return "hello"

    hello()
"""


@pytest.mark.parametrize("script", ["postBuild", "start"])
def test_the_scripts_are_executable_bash(script):
    path = BINDER / script
    subprocess.run(["bash", "-n", path], check=True)
    assert path.read_text().startswith("#!/bin/bash\nset -euo pipefail\n")
    assert os.access(path, os.X_OK)


def test_start_executes_the_command_of_the_container():
    assert (BINDER / "start").read_text().endswith('\nexec "$@"\n')
    printed = subprocess.run(
        [BINDER / "start", "printenv", "TEMPORAL_AIRFLOW_HOME"], capture_output=True, text=True, cwd=ROOT
    )
    assert printed.stdout == f"{ROOT}/.temporal_airflow\n"


def test_the_requirements_are_pinned():
    constraints, package, *others = (BINDER / "requirements.txt").read_text().splitlines()
    assert (constraints, package) == ("-c ../constraints.txt", "-e .[notebooks]")
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert others
    assert set(others) <= pinned


def test_the_package_supports_the_python_of_the_image():
    version = re.fullmatch(r"python-3\.(\d+)\n", (BINDER / "runtime.txt").read_text())
    assert version
    assert 10 <= int(version[1]) < 14


def test_the_overrides_of_jupyterlab_are_json():
    assert all(":" in plugin for plugin in json.loads((BINDER / "overrides.json").read_text()))


def test_without_a_hub_the_uis_are_on_this_machine(monkeypatch):
    monkeypatch.delenv(JUPYTERHUB_VARIABLE, raising=False)
    assert jupyterhub.ui_url(8233) == "http://127.0.0.1:8233"
    command = temporal_server.command(
        Path("temporal"), ports=dict.fromkeys(TEMPORAL_PORTS, 8233), namespace="default"
    )
    assert "--ui-public-path" not in command


@pytest.fixture
def server(tmp_path):
    """Start a Jupyter server with a hub's base URL; yield its address including the base URL."""
    port = ports.choose(["server"])["server"]
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--ServerApp.base_url={PREFIX}", f"--IdentityProvider.token={TOKEN}"]
    command += [f"--ServerApp.root_dir={tmp_path}", "--ServerApp.port_retries=0"]
    address = f"http://{ports.LOOPBACK}:{port}{PREFIX.rstrip('/')}"

    def answers():
        assert process.poll() is None
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
        except OSError:
            return False
        return True

    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **folders}, stdout=log, stderr=log)
    try:
        until(answers, "the Jupyter server", 60)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_uis_load_below_the_path_of_a_hub(server, tmp_path, monkeypatch):
    monkeypatch.setenv(JUPYTERHUB_VARIABLE, PREFIX)
    (tmp_path / "greeting.py").write_text(DAG)
    with LocalStack(tmp_path / "home", ui=True) as stack:
        run = stack.run(tmp_path / "greeting.py")
        assert run.wait(timeout=120) == "success"
        visitor = Visitor(server, TOKEN)
        for name, url in stack.links.items():
            assert url.startswith(f"{PREFIX}proxy/absolute/"), name
            assert visitor.load(url) > 2
            assert visitor.load(run.links[name]) > 2
        # The page has set a cookie, which logs in the visitor as in a browser.
        airflow, temporal = stack.links["airflow"], stack.links["temporal"]
        visitor.load(f"{airflow}/auth/token/login")
        _, answer = visitor.get(f"{server_of(server)}{airflow}/api/v2/dags/greeting/dagRuns")
        assert [found["dag_run_id"] for found in json.loads(answer)["dag_runs"]] == [run.run_id]
        _, answer = visitor.get(f"{server_of(server)}{temporal}/api/v1/namespaces/default/workflows")
        assert run.workflow_id in answer
        page = f"{airflow}/temporal-airflow/run?dag_id=greeting&run_id={urllib.parse.quote(run.run_id)}"
        _, tab = visitor.get(f"{server_of(server)}{page}")
        assert f'href="{temporal}/namespaces/default/workflows/' in tab


def server_of(address):
    return address.removesuffix(PREFIX.rstrip("/"))
