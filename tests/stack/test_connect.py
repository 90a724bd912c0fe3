"""A gateway to a configured cluster; here the cluster is an embedded stack, reached by its settings alone."""

from __future__ import annotations

import pytest

import temporal_airflow_nb as ta
from temporal_airflow_nb.config import HOME_VARIABLE
from temporal_airflow_nb.errors import DagFileError, ServiceUnavailableError
from temporal_airflow_nb.stack import processes, state

DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def greet():
    @task
    def hello(name="world"):
        return f"hello {name}"

    hello()

greet()
"""


@pytest.fixture
def configured(stack, monkeypatch):
    for name, value in stack.status()["env"].items():
        if name != HOME_VARIABLE:
            monkeypatch.setenv(name, value)
    return stack


def test_a_dag_of_the_clusters_bundles_runs_on_the_cluster(configured, tmp_path):
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "greet.py").write_text(DAG)
    assert configured.run(dags / "greet.py").wait(timeout=60) == "success"
    with ta.connect() as cluster:
        assert cluster.status()["services"][0]["state"] == "running"
        assert cluster.status()["env"]["TEMPORAL_ADDRESS"] == configured.status()["env"]["TEMPORAL_ADDRESS"]
        run = cluster.run(dags / "greet.py")
        assert run.wait(timeout=60) == "success"
        (tmp_path / "elsewhere.py").write_text(DAG)
        with pytest.raises(DagFileError, match="isn't in any DAG bundle"):
            cluster.run(tmp_path / "elsewhere.py")


def test_closing_leaves_no_process_and_no_folder(configured):
    cluster = ta.connect()
    home = cluster._home
    marker = state.read_stack(home)["id"]
    assert list(processes.marked(marker))
    cluster.stop()
    cluster.stop()
    assert not list(processes.marked(marker))
    assert not home.exists()
    assert repr(cluster) == "ConnectedStack(closed)"
    with pytest.raises(ServiceUnavailableError, match="Not connected"):
        _ = cluster.client
    assert configured.client.call("ping")
