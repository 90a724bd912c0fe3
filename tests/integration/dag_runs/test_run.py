"""The class `Run` on a real stack."""

from __future__ import annotations

import os
import signal
import threading
import time

import pandas as pd
import pytest

from temporal_airflow_nb import LocalStack, Run
from temporal_airflow_nb.errors import RunNotFoundError, RunTimeoutError, ServiceUnavailableError
from tests.support.waiting import until

DAG = """
import time
from datetime import timedelta
from airflow.sdk import dag, get_current_context, task

@dag(schedule=None, params={"seconds": 0})
def run_seen():
    @task
    def rows():
        time.sleep(get_current_context()["params"]["seconds"])
        return [1, 2]

    @task(retries=1, retry_delay=timedelta(milliseconds=100))
    def double(row):
        if row == 2 and get_current_context()["ti"].try_number == 1:
            raise ValueError("not yet")
        print("doubling", row)
        return row * 2

    double.expand(row=rows())

run_seen()
"""


@pytest.fixture(scope="module")
def dag_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("dags") / "run_seen.py"
    path.write_text(DAG)
    return path


@pytest.fixture(scope="module")
def ended(stack, dag_file):
    """A run that has succeeded."""
    run = stack.run(dag_file)
    assert run.wait(timeout=60) == "success"
    return run


@pytest.fixture
def slow(stack, dag_file):
    """A long run, cancelled after the test."""
    run = stack.run(dag_file, conf={"seconds": 120})
    yield run
    run.cancel()


def test_an_ended_run_has_state_links_and_frames(ended, stack):
    assert ended.state == "success"
    assert ended.workflow_id == f"airflow-run_seen-{ended.run_id}"
    assert list(ended.tasks["task_id"]) == ["rows", "double", "double"]
    assert list(ended.tasks["map_index"]) == [-1, 0, 1]
    assert list(ended.tasks["try_number"]) == [1, 1, 2]
    assert (ended.tasks["state"] == "success").all()
    assert (ended.tasks["duration"] > pd.Timedelta(0)).all()
    values = ended.xcoms.set_index(["task_id", "map_index"])["value"]
    assert (values["rows", -1], values["double", 0], values["double", 1]) == ([1, 2], 2, 4)
    assert ended.links["temporal"].startswith(stack.links["temporal"])
    assert repr(ended) == f"<Run run_seen {ended.run_id} success>"
    assert "run_seen" in ended._repr_html_()


def test_logs_of_each_try(ended):
    assert "doubling 2" in ended.logs("double", map_index=1)
    first = ended.logs("double", map_index=1, try_number=1)
    assert "ValueError: not yet" in first
    assert first.try_number == 1


@pytest.mark.parametrize(
    "which", [{"task_id": "nope"}, {"task_id": "double"}, {"task_id": "rows", "try_number": 7}], ids=str
)
def test_logs_of_a_missing_task_or_try_are_refused(ended, which):
    with pytest.raises(RunNotFoundError):
        ended.logs(**which)


def test_a_missing_run_is_refused(stack):
    with pytest.raises(RunNotFoundError, match="nope"):
        Run(stack.client, "run_seen", "nope").wait(timeout=5)
    assert repr(Run(stack.client, "run_seen", "nope")) == "<Run run_seen nope state unknown>"


def test_wait_ends_at_its_timeout_and_the_run_continues(slow):
    begun = time.monotonic()
    with pytest.raises(RunTimeoutError, match="run continues"):
        slow.wait(timeout=1.5)
    assert 1.5 <= time.monotonic() - begun < 4
    assert slow.state in ("queued", "running")
    assert isinstance(RunTimeoutError(""), TimeoutError)


def test_wait_takes_seconds_only(slow):
    with pytest.raises(TypeError, match="number of seconds"):
        slow.wait(timeout="60")


def test_wait_can_be_interrupted(slow):
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match="The run continues"):
        slow.wait()
    assert time.monotonic() - begun < 3


def test_a_cancelled_run_has_failed(stack, dag_file):
    run = stack.run(dag_file, conf={"seconds": 120})
    until(lambda: "running" in set(run.tasks["state"]))
    assert run.cancel() == "failed"
    assert run.wait(timeout=20) == "failed"


def test_listeners_get_every_change_until_they_unsubscribe(stack, dag_file):
    run = stack.run(dag_file, conf={"seconds": 2})
    heard, seen = [], set()

    def listen(snapshot):
        heard.append(snapshot["state"])
        seen.update((task["task_id"], task["state"]) for task in snapshot["tasks"])

    unsubscribe = run.subscribe(listen)
    run.wait(timeout=60)
    unsubscribe()
    known = len(heard)
    run.watch()
    assert heard[-1] == "success"
    assert ("rows", "running") in seen
    assert len(heard) == known


def test_an_ended_run_can_be_shown_after_its_stack_is_gone(tmp_path, dag_file):
    with LocalStack(tmp_path / "home") as stack:
        ended, other = stack.run(dag_file), stack.run(dag_file)
        ended.wait(timeout=90)
    assert ended.state == "success"
    assert len(ended.tasks) == 3
    assert "success" in repr(ended)
    other._client.retry_for = 0.2
    with pytest.raises(ServiceUnavailableError):
        _ = other.state
    assert "state unknown" in repr(other)
