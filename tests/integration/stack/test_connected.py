"""A gateway to a configured cluster; here the cluster is an embedded stack, reached by its settings alone."""

from __future__ import annotations

import os
import socket

import pytest

import temporal_airflow_nb as ta
from temporal_airflow_nb.config.environment import HOME_VARIABLE
from temporal_airflow_nb.errors import (
    DagFileError,
    InvalidInputError,
    ServiceUnavailableError,
    UnavailableHereError,
)
from temporal_airflow_nb.stack import current, processes, state_folder
from temporal_airflow_nb.stack.connected import ConnectedStack

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


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
        env = configured.status()["env"]
        assert cluster.status()["env"]["TEMPORAL_ADDRESS"] == env["TEMPORAL_ADDRESS"]
        assert cluster.where == {
            "airflow": f"database {env['AIRFLOW__DATABASE__SQL_ALCHEMY_CONN']}",
            "temporal": f"{env['TEMPORAL_ADDRESS']} / {env['TEMPORAL_NAMESPACE']}",
            "profile": "default",
            "production": False,
        }
        assert current.current() is cluster
        assert cluster.where["temporal"] in repr(cluster)
        assert ta.status()["where"]["airflow"] == cluster.where["airflow"]
        run = cluster.run(dags / "greet.py")
        assert run.wait(timeout=60) == "success"
        (tmp_path / "elsewhere.py").write_text(DAG)
        with pytest.raises(DagFileError, match="isn't in any DAG bundle"):
            cluster.run(tmp_path / "elsewhere.py")
        with pytest.raises(UnavailableHereError, match="Only Airflow's REST API"):
            cluster.trigger("greet")
    assert current.current() is not cluster


def test_closing_leaves_no_process_and_no_folder(configured):
    cluster = ta.connect()
    home = cluster._service._home
    stack_id = state_folder.read_stack(home)["id"]
    assert list(processes.find_all(stack_id))
    cluster.stop()
    cluster.stop()
    assert not list(processes.find_all(stack_id))
    assert not home.exists()
    assert repr(cluster) == "ConnectedStack(closed)"
    with pytest.raises(ServiceUnavailableError, match="Not connected"):
        _ = cluster.client
    assert configured.client.ping()


CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        (
            "postgresql+psycopg2://me:s3cret@127.0.0.1:{port}/airflow",
            ServiceUnavailableError,
            r"database postgresql\+psycopg2://me:\*\*\*@127.0.0.1:\d+/airflow can't be reached: .*refused",
        ),
        ("nosuch://host/airflow", InvalidInputError, "setting nosuch://host/airflow can't be used"),
    ],
)
def test_a_database_that_is_out_of_reach_is_named(configured, monkeypatch, url, error, message):
    monkeypatch.setenv(CONNECTION, url.format(port=closed_port()))
    with pytest.raises(error, match=message) as raised:
        ta.connect()
    assert "s3cret" not in str(raised.value)


def test_a_temporal_that_is_out_of_reach_is_named(configured, monkeypatch):
    address = f"127.0.0.1:{closed_port()}"
    monkeypatch.setenv("TEMPORAL_ADDRESS", address)
    with pytest.raises(ServiceUnavailableError, match=f"Temporal at {address} can't be reached"):
        ta.connect()


def test_a_profile_that_isnt_there_is_refused_with_those_that_are(tmp_path, monkeypatch):
    (tmp_path / "temporal.toml").write_text('[profile.staging]\naddress = "staging:7233"\n')
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "temporal.toml"))
    with pytest.raises(InvalidInputError, match="no profile 'prod'") as raised:
        ta.connect("prod")
    assert "Profiles: staging." in str(raised.value)
    with pytest.raises(TypeError, match="profile must be a str"):
        ta.connect(3)


def test_production_is_recognised_by_profile_namespace_and_address(tmp_path, monkeypatch):
    (tmp_path / "temporal.toml").write_text(
        """
[profile.live]
address = "eu.tmprl.cloud:7233"
namespace = "etl-PRODUCTION.x1"
[profile.staging]
address = "staging:7233"
"""
    )
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "temporal.toml"))
    monkeypatch.delenv("AIRFLOW_HOME", raising=False)
    live, staging = ConnectedStack("live"), ConnectedStack("staging")
    assert live.where == {
        "airflow": "none: Temporal only",
        "temporal": "eu.tmprl.cloud:7233 / etl-PRODUCTION.x1",
        "profile": "live",
        "production": True,
    }
    assert staging.where["production"] is False
    assert ConnectedStack("staging", production=["stag*"]).where["production"] is True
    monkeypatch.setenv(CONNECTION, "postgresql://airflow:s3cret@db.prod.example.com/airflow")
    assert ConnectedStack("staging").where["production"] is True
    assert ConnectedStack("staging").where["airflow"] == (
        "database postgresql://airflow:***@db.prod.example.com/airflow"
    )


def test_without_an_airflow_runs_are_seen_through_temporal(configured, monkeypatch, tmp_path):
    (tmp_path / "greet.py").write_text(DAG)
    run = configured.run(tmp_path / "greet.py")
    assert run.wait(timeout=60) == "success"
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        monkeypatch.delenv(name)
    with ta.connect() as cluster:
        assert cluster.where["airflow"] == "none: Temporal only"
        assert cluster.status()["services"][0]["state"] == "running"
        seen = ta.runs.get(run.dag_id, run.run_id)
        assert seen.state == "success"
        assert list(seen.tasks["task_id"]) == ["hello"]
        with pytest.raises(UnavailableHereError):
            seen.logs("hello")
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{closed_port()}")
    with pytest.raises(ServiceUnavailableError, match="can't be reached"):
        ta.connect()
