"""Airflow's queues become Temporal task queues, and each worker serves the queues that it is started with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest

from temporal_airflow_nb.cli.doctor import examine
from tests.support.stack_helpers import pid_of, states, until, with_client

DAG = """
    import os
    import psutil
    from airflow.sdk import DAG, task

    with DAG("in_queues", schedule=None):

        @task
        def usual():
            return [process.pid for process in psutil.Process().parents()]

        @task(queue="gpu", retries=1, retry_delay=0)
        def special(ti=None):
            if ti.try_number == 1:
                raise ValueError("once")
            return [process.pid for process in psutil.Process().parents()]

        @task(queue="default")
        def after(numbers):
            return "after"

        usual()
        after(special())
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "in_queues.py"
    path.write_text(textwrap.dedent(DAG))
    return path


@contextmanager
def worker(stack, queues):
    """Run a second worker beside that of the stack, with the command of production."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "temporal_airflow_nb.cli.main",
            "worker",
            "--home",
            stack.home,
            "--queues",
            queues,
        ],
        env={**os.environ, "TEMPORAL_AIRFLOW_QUEUES": "not this one"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def task_queues(stack, run):
    """Return the Temporal task queue of each task's activity."""

    async def fetch(client):
        history = await client.get_workflow_handle(run.workflow_id).fetch_history()
        scheduled = [event.activity_task_scheduled_event_attributes for event in history.events]
        return {
            event.activity_id.split(".")[0]: event.task_queue.name for event in scheduled if event.activity_id
        }

    return with_client(stack, fetch)


def test_an_embedded_stack_serves_every_queue(stack, path):
    run = stack.run(path)
    assert run.wait(timeout=60) == "success"
    assert task_queues(stack, run) == {
        "usual": "airflow-tasks",
        "special": "airflow-tasks:gpu",
        "after": "airflow-tasks",
    }


def test_a_task_waits_for_a_worker_of_its_queue(tmp_path, path, monkeypatch):
    from temporal_airflow_nb import LocalStack

    monkeypatch.setenv("TEMPORAL_AIRFLOW_QUEUES", "default")
    with LocalStack(tmp_path / "home") as stack:
        run = stack.run(path)
        until(lambda: states(run)["usual"] == "success")
        finding = until(lambda: next((f for f in examine(stack) if f.state == "problem"), None))
        assert (finding.check, finding.exit_code) == ("queues", 3)
        assert "gpu (1 waiting)" in finding.detail
        assert "--queues gpu" in finding.next_step
        assert states(run)["special"] == "queued"
        with worker(stack, "gpu") as other:
            assert run.wait(timeout=90) == "success"
            parents = run.xcoms.set_index("task_id")["value"]
            assert other.pid in parents["special"]
            assert pid_of(stack, "worker") in parents["usual"]
        waiting = stack.run(path)
        until(lambda: states(waiting)["special"] == "queued")
        assert waiting.cancel() == "failed"
        until(lambda: waiting.state == "failed")


def test_a_malformed_list_of_queues_is_refused(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-m", "temporal_airflow_nb.cli.main", "worker", "--queues", "gpu,,default"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "empty name" in answer.stderr
    assert "Traceback" not in answer.stderr
