"""A configured Airflow that is reached by its REST API alone; here it is that of a stack with Airflow's UI."""

from __future__ import annotations

import pandas as pd
import pytest

import temporal_airflow_nb as ta
from temporal_airflow_nb import Run, session
from temporal_airflow_nb.errors import (
    DagNotFoundError,
    InvalidInputError,
    RunNotFoundError,
    ServiceUnavailableError,
    UnavailableHereError,
)
from temporal_airflow_nb.stack.rest_api import base_address

pytestmark = pytest.mark.timeout(600)

DAG = """
from datetime import datetime, timedelta

from airflow.sdk import DAG, TaskGroup, task

with DAG("by_rest", schedule=None, start_date=datetime(2026, 1, 1)):

    @task
    def numbers():
        print("counting")
        return [1, 2]

    @task
    def double(number):
        return number * 2

    @task(retries=1, retry_delay=timedelta(seconds=0))
    def second_time(ti=None):
        if ti.try_number == 1:
            raise ValueError("not yet")

    @task
    def fail():
        raise ValueError("not today")

    with TaskGroup("group"):
        double.expand(number=numbers()) >> second_time()
    fail()
"""


@pytest.fixture(scope="module")
def door(ui_stack, airflow_api, tmp_path_factory):
    """The stack's Airflow by REST, with a DAG that it knows."""
    folder = tmp_path_factory.mktemp("dags")
    (folder / "by_rest.py").write_text(DAG)
    ui_stack.register_folder(folder)
    airflow_api.dag_appears("by_rest")
    airflow_api.unpause("by_rest")
    with ta.connect(airflow=ui_stack.links["airflow"] + "/") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def run(door):
    """A run that was triggered by REST, and has failed."""
    run = door.trigger("by_rest", run_id="first")
    assert run.wait(timeout=120) == "failed"
    return run


@pytest.fixture
def native(ui_stack, run):
    """The same run through the gateway."""
    return Run(ui_stack.client, run.dag_id, run.run_id)


def test_where_it_leads_is_told(door, ui_stack):
    assert door.where["airflow"] == f"REST {ui_stack.links['airflow']}"
    assert session.current() is door
    assert door.status()["services"] == [
        {"name": "airflow", "state": "running", "address": ui_stack.links["airflow"], "pid": None}
    ]


def test_a_run_is_told_as_through_the_gateway(run, native):
    ours, theirs = run.snapshot(), native.snapshot()
    same = ("dag_id", "run_id", "workflow_id", "state", "start_date", "end_date", "airflow_state_counts")
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    for frame, key in (
        ("tasks", ["task_id", "map_index"]),
        ("tries", ["task_id", "map_index", "try_number"]),
        ("xcoms", ["task_id", "map_index", "key"]),
    ):
        rest, database = (one.frame(frame).set_index(key).sort_index() for one in (run, native))
        pd.testing.assert_frame_equal(rest, database)
    assert ours["links"]["airflow"] == theirs["links"]["airflow"]


def test_the_grid_is_told_as_through_the_gateway(run, native):
    body = {"dag_id": run.dag_id, "run_id": run.run_id}
    ours, theirs = (one.client.call("feed", timeout=0, **body) for one in (run, native))
    apart = ("cursor", "now", "links")
    for name in theirs.keys() - set(apart):
        assert ours[name] == theirs[name], name
    again = run.client.call("feed", after=ours["cursor"], timeout=0, **body)
    assert not again["full"]
    assert not again["tasks"]


def test_a_task_is_told_with_its_error_and_its_log(run, native):
    body = {"dag_id": run.dag_id, "run_id": run.run_id, "task_id": "fail"}
    ours, theirs = (one.client.call("task", **body) for one in (run, native))
    assert (ours["error"]["type"], ours["error"]["value"]) == ("ValueError", "not today")
    same = ("task_id", "map_index", "try_number", "state", "operator", "rendered", "xcoms")
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    users = [frame["name"] for frame in ours["error"]["frames"] if frame["user"]]
    assert users[-1] == "fail"
    assert "counting" in run.logs("group.numbers")
    assert "not yet" in run.logs("group.second_time", try_number=1)
    tail = run.client.call("log_tail", **{**body, "map_index": -1, "try_number": 1, "after": 0})
    assert tail["ended"]
    assert "not today" in "".join(line["text"] for line in tail["lines"])


def test_runs_and_pools_are_listed(door, run):
    listed = ta.runs("by_rest")
    assert list(listed["run_id"]) == ["first"]
    assert "default_pool" in set(ta.pools()["pool"])


def test_tasks_are_marked_and_cleared_and_a_run_is_cancelled(door):
    run = door.trigger("by_rest")
    run.wait(timeout=120)
    assert list(run.mark("success", "fail")["task_id"]) == ["fail"]
    cleared = run.clear("group.double", map_index=1)
    assert list(zip(cleared["task_id"], cleared["map_index"], strict=True)) == [("group.double", 1)]
    assert run.wait(timeout=120) == "success"
    run.clear()
    assert run.cancel() == "failed"
    assert run.wait(timeout=120) == "failed"


def test_what_isnt_there_is_named(door, run):
    with pytest.raises(DagNotFoundError):
        door.trigger("no_such_dag")
    with pytest.raises(RunNotFoundError):
        Run(door.client, "by_rest", "no_such_run").snapshot()
    with pytest.raises(RunNotFoundError, match="no_such_task"):
        run.logs("no_such_task")
    with pytest.raises(RunNotFoundError, match="no try 9"):
        run.logs("fail", try_number=9)
    with pytest.raises(InvalidInputError):
        run.mark("no_such_state", "fail")


def test_what_cant_be_done_by_rest_is_refused(door, run, tmp_path):
    (tmp_path / "dag.py").write_text(DAG)
    with pytest.raises(UnavailableHereError, match="file can't be handed to Airflow"):
        door.run(tmp_path / "dag.py")
    with pytest.raises(UnavailableHereError, match="can't answer `events`"):
        _ = run.events


def test_a_wrong_token_is_told(ui_stack, monkeypatch):
    monkeypatch.setenv("AIRFLOW_API_TOKEN", "no-token")
    with pytest.raises(InvalidInputError, match="refuses the token"):
        ta.connect(airflow=ui_stack.links["airflow"])


def test_an_airflow_that_is_out_of_reach_is_named():
    with pytest.raises(ServiceUnavailableError, match=r"Airflow at http://127\.0\.0\.1:9 can't be reached"):
        ta.connect(airflow="http://127.0.0.1:9")


@pytest.mark.parametrize("address", ["airflow.example.com", "ftp://airflow", "https://me:secret@airflow"])
def test_an_address_that_cant_be_used_is_refused(address):
    with pytest.raises(InvalidInputError) as raised:
        base_address(address)
    assert "secret" not in str(raised.value)
