"""Answers to tasks that wait for a person: early and late ones, and refused ones."""

from __future__ import annotations

import textwrap

import pytest
from temporalio.api.enums.v1 import PendingActivityState

from temporal_airflow_nb.errors import InvalidInputError, RunNotFoundError
from tests.support.stack_helpers import kill, lines, pid_of, states, until, with_client

DAG = """
    import time
    from pathlib import Path
    from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
    from airflow.sdk import DAG, BaseNotifier, task

    FOLDER = Path({folder!r})

    def wait_for(name):
        (FOLDER / f"before_{{name}}").touch()
        while not (FOLDER / name).exists():
            time.sleep(0.05)
        with (FOLDER / "trace").open("a") as file:
            file.write(f"{{name}} was there\\n")

    class WaitsForFile(BaseNotifier):
        def notify(self, context):
            wait_for("go")

    with DAG("asks_slowly", schedule=None):
        HITLOperator(task_id="ask", subject="Which?", options=["a", "b"], notifiers=WaitsForFile())

    with DAG("asks", schedule=None):
        ApprovalOperator(task_id="ask", subject="May I?")

    with DAG("asks_beside_a_slow_callback", schedule=None):
        ApprovalOperator(task_id="ask", subject="May I?")

        @task(on_success_callback=lambda context: wait_for("go"))
        def slowly_called_back():
            pass

        slowly_called_back()
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "asks.py"
    path.write_text(textwrap.dedent(DAG).format(folder=str(tmp_path)))
    return path


def heartbeat_after_cancel(stack, run):
    """Return the last heartbeats of activities that have been asked to cancel, in nanoseconds."""

    async def describe(client):
        description = await client.get_workflow_handle(run.workflow_id).describe()
        return [
            activity.last_heartbeat_time.ToNanoseconds()
            for activity in description.raw_description.pending_activities
            if activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED
        ]

    return with_client(stack, describe)


def test_an_answer_may_arrive_before_the_task_waits_for_it(stack, path, tmp_path):
    run = stack.run(path, dag_id="asks_slowly")
    until((tmp_path / "before_go").exists)
    assert states(run) == {"ask": "running"}
    run.respond("ask", ["b"])
    (tmp_path / "go").touch()
    assert run.wait(timeout=60) == "success"
    assert run.xcoms["value"].iloc[0]["chosen_options"] == ["b"]


def test_invalid_answers_are_refused(stack, path):
    run = stack.run(path, dag_id="asks")
    with pytest.raises(RunNotFoundError, match="has no task 'nobody'"):
        run.respond("nobody", "Approve")
    until(lambda: states(run) == {"ask": "awaiting_input"})
    with pytest.raises(RunNotFoundError, match="map_index 3"):
        run.respond("ask", "Approve", map_index=3)
    with pytest.raises(InvalidInputError, match="Invalid options"):
        run.respond("ask", "Perhaps")
    with pytest.raises(InvalidInputError, match="only a single option"):
        run.respond("ask", ["Approve", "Reject"])
    with pytest.raises(InvalidInputError, match="at least one option"):
        run.respond("ask", [])
    assert states(run) == {"ask": "awaiting_input"}
    run.respond("ask", "Approve")
    with pytest.raises(InvalidInputError, match="answered already"):
        run.respond("ask", "Reject")
    assert run.wait(timeout=60) == "success"


def is_replaced(stack, lost):
    """Return whether another worker has replaced the lost one."""
    row = next(row for row in stack.status()["services"] if row["name"] == "worker")
    return row["state"] == "running" and row["pid"] != lost


def test_an_answer_counts_after_the_worker_was_lost(own_stack, path):
    run = own_stack.run(path, dag_id="asks")
    until(lambda: states(run) == {"ask": "awaiting_input"})
    worker = pid_of(own_stack, "worker")
    kill(worker)
    until(lambda: is_replaced(own_stack, worker), timeout=90)
    run.respond("ask", "Approve")
    assert run.wait(timeout=60) == "success"


def test_an_answer_does_not_stop_callbacks_of_other_tasks(stack, path, tmp_path):
    run = stack.run(path, dag_id="asks_beside_a_slow_callback")
    until((tmp_path / "before_go").exists)
    until(lambda: states(run)["ask"] == "awaiting_input")
    run.respond("ask", "Approve")
    until(lambda: states(run)["ask"] == "success")
    first = until(lambda: heartbeat_after_cancel(stack, run), "the activity is to be cancelled")
    # The worker learns of the cancellation with one of the next two heartbeats.
    until(lambda: heartbeat_after_cancel(stack, run) != first)
    second = heartbeat_after_cancel(stack, run)
    until(lambda: heartbeat_after_cancel(stack, run) != second)
    assert "being stopped" not in str(run.logs("slowly_called_back"))
    (tmp_path / "go").touch()
    assert run.wait(timeout=60) == "success"
    until(lambda: lines(tmp_path / "trace", "go was there"))


@pytest.fixture
def own_stack(tmp_path):
    """Start a stack whose worker the test may kill."""
    from temporal_airflow_nb import LocalStack

    with LocalStack(tmp_path / "home") as stack:
        yield stack
