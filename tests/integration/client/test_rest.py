"""A configured Airflow through its REST API alone; here it is the Airflow of a stack with UI."""

from __future__ import annotations

import time

import pandas as pd
import pytest

import temporal_airflow_nb as ta
from temporal_airflow_nb import Run
from temporal_airflow_nb.client.rest.client import RestClient
from temporal_airflow_nb.client.rest.http import base_address
from temporal_airflow_nb.errors import (
    DagNotFoundError,
    InvalidInputError,
    RunNotFoundError,
    ServiceUnavailableError,
    UnavailableHereError,
)
from temporal_airflow_nb.live_grid.poller import GridPoller
from temporal_airflow_nb.stack import current
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)

DAG = """
from datetime import datetime, timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Asset, TaskGroup, task

with DAG("by_rest", schedule=None, start_date=datetime(2026, 1, 1)):

    @task(outlets=[Asset("counted")])
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

with DAG("asks_by_rest", schedule="@yearly", start_date=datetime(2026, 1, 1), catchup=False, tags=["b", "a"]):

    @task
    def talk():
        import time

        print("first word", flush=True)
        time.sleep(3)
        print("last word")

    ApprovalOperator(task_id="ask", subject="May I?") >> talk()
"""


@pytest.fixture(scope="module")
def door(ui_stack, airflow_api, tmp_path_factory):
    """The stack's Airflow by REST, with a DAG that it knows."""
    folder = tmp_path_factory.mktemp("dags")
    (folder / "by_rest.py").write_text(DAG)
    ui_stack.register_folder(folder)
    airflow_api.dag_appears("by_rest")
    for dag_id in ("by_rest", "asks_by_rest"):
        airflow_api.unpause(dag_id)
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


def test_where_and_status_name_the_airflow(door, ui_stack):
    assert door.where["airflow"] == f"REST {ui_stack.links['airflow']}"
    assert current.current() is door
    assert door.status()["services"] == [
        {"name": "airflow", "state": "running", "address": ui_stack.links["airflow"], "pid": None}
    ]


def test_a_run_is_the_same_as_through_the_gateway(run, native):
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


def test_the_grid_is_the_same_as_through_the_gateway(run, native):
    which = (run.dag_id, run.run_id)
    ours, theirs = (one.client.get_grid_changes(*which, timeout=0) for one in (run, native))
    apart = ("cursor", "now", "links")
    for name in theirs.keys() - set(apart):
        assert ours[name] == theirs[name], name
    again = run.client.get_grid_changes(*which, after=ours["cursor"], timeout=0)
    assert not again["full"]
    assert not again["tasks"]


def test_a_task_has_its_error_and_its_log(run, native):
    which = (run.dag_id, run.run_id, "fail")
    ours, theirs = (one.client.get_task(*which) for one in (run, native))
    assert (ours["error"]["type"], ours["error"]["value"]) == ("ValueError", "not today")
    same = ("task_id", "map_index", "try_number", "state", "operator", "rendered", "xcoms")
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    users = [frame["name"] for frame in ours["error"]["frames"] if frame["user"]]
    assert users[-1] == "fail"
    assert "counting" in run.logs("group.numbers")
    assert "not yet" in run.logs("group.second_time", try_number=1)
    tail = run.client.tail_log(*which, try_number=1)
    assert tail["ended"]
    assert "not today" in "".join(line["text"] for line in tail["lines"])


def test_tables_are_those_of_the_gateway(run, native):
    doors = run.client, native.client
    for table in (ta.runs, ta.dags, ta.pools):
        rest, database = (table(client=client) for client in doors)
        pd.testing.assert_frame_equal(rest, database)
    assert list(run.assets["asset"]) == ["counted"]
    pd.testing.assert_frame_equal(run.assets, native.assets)
    with pytest.raises(DagNotFoundError):
        ta.runs("nowhere", client=run.client)
    with pytest.raises(InvalidInputError, match="no run state 'lost'"):
        ta.runs("by_rest", "lost", client=run.client)


def test_a_task_is_answered_and_a_growing_log_is_read(door):
    run = door.trigger("asks_by_rest")
    until(lambda: "awaiting_input" in set(run.tasks["state"].dropna()), "the task asks", 60)
    run.respond("ask", "Approve")
    until(lambda: (run.tasks.set_index("task_id")["state"] == "running").get("talk"), "the other runs", 60)

    def tail(after):
        return run.client.tail_log(run.dag_id, run.run_id, "talk", try_number=1, after=after)

    first = until(
        lambda: told if "first word" in str((told := tail(0))["lines"]) else None, "the first word", 60
    )
    assert not first["ended"]
    assert run.wait(timeout=60) == "success"
    last = tail(first["next"])
    assert last["ended"]
    assert "last word" in str(last["lines"])
    assert "first word" not in str(last["lines"])
    whole = tail(0)
    assert whole["lines"] == first["lines"] + last["lines"]


def test_a_poller_notices_that_airflow_is_gone_and_back(ui_stack, run):
    with Proxy(ui_stack.links["airflow"]) as proxy:
        poller = GridPoller(RestClient(f"http://{proxy.address}"), run.dag_id, run.run_id)
        poller.poll(retry=True)
        proxy.cut()
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError):
            poller.poll(2.0)
        assert time.monotonic() - began < 5
        assert not poller.is_connected
        proxy.mend()
        poller.poll()
        assert poller.is_connected


def test_a_cleared_run_is_the_same_as_through_the_gateway(ui_stack, door):
    run = door.trigger("by_rest")
    run.wait(timeout=120)
    run.clear("fail")
    run.cancel()
    run.wait(timeout=60)
    native = Run(ui_stack.client, run.dag_id, run.run_id)
    which = (run.dag_id, run.run_id)
    ours, theirs = (one.client.get_grid_changes(*which, timeout=0) for one in (run, native))
    assert ours["tasks"] == theirs["tasks"]
    assert ours["cells"] == theirs["cells"]
    key = ["task_id", "map_index", "try_number"]
    rest, database = (one.tries.set_index(key).sort_index() for one in (run, native))
    pd.testing.assert_frame_equal(rest, database)


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


def test_an_error_names_a_missing_dag_run_or_task(door, run):
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


def test_operations_without_a_rest_api_are_refused(door, run, tmp_path):
    (tmp_path / "dag.py").write_text(DAG)
    with pytest.raises(UnavailableHereError, match="file can't be handed to Airflow"):
        door.run(tmp_path / "dag.py")
    with pytest.raises(UnavailableHereError, match="in Temporal, which isn't configured here"):
        _ = run.events
    target = tmp_path / "cell.py"
    with pytest.raises(UnavailableHereError, match="can't be handed to Airflow"):
        ta.run_cell(DAG, write_to=target)
    assert not target.exists()


def test_an_error_says_that_the_token_is_refused(ui_stack, monkeypatch):
    monkeypatch.setenv("AIRFLOW_API_TOKEN", "no-token")
    with pytest.raises(InvalidInputError, match="refuses the token"):
        ta.connect(airflow=ui_stack.links["airflow"])


def test_a_new_token_in_the_environment_is_used(ui_stack, airflow_api, monkeypatch, run):
    monkeypatch.setenv("AIRFLOW_API_TOKEN", token := RestClient(ui_stack.links["airflow"])._api._new_token())
    door = RestClient(ui_stack.links["airflow"])
    door._api._session.token = "expired"
    assert door.get_run(run.dag_id, run.run_id)["state"] == "failed"
    assert door._api._session.token == token


def test_an_error_names_an_airflow_that_cannot_be_reached():
    with pytest.raises(ServiceUnavailableError, match=r"Airflow at http://127\.0\.0\.1:9 can't be reached"):
        ta.connect(airflow="http://127.0.0.1:9")


@pytest.mark.parametrize("address", ["airflow.example.com", "ftp://airflow", "https://me:secret@airflow"])
def test_an_invalid_address_is_refused(address):
    with pytest.raises(InvalidInputError) as raised:
        base_address(address)
    assert "secret" not in str(raised.value)
