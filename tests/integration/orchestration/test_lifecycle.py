"""Cancelling, clearing and marking runs: from Python, from the command line, and at awkward moments.

``oracle/scenarios.py`` compares the outcomes with those of native Airflow.
"""

from __future__ import annotations

import json

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.worker import Replayer

from temporal_airflow_nb.cli import main
from temporal_airflow_nb.config.environment import HOME_VARIABLE
from temporal_airflow_nb.errors import InvalidInputError, RunNotFoundError
from temporal_airflow_nb.orchestration.workflow.deep_workflow import ExecuteAirflowDagDeepWorkflow
from tests.support.stack_helpers import (
    DAGS,
    in_a_loop,
    kill,
    lines,
    pid_of,
    states,
    tries,
    until,
    with_client,
)

DAG = DAGS / "held.py"
ENDED = {"first": "success", "middle": "success", "each": "success"}


@pytest.fixture
def start(stack, tmp_path):
    """Return a function that starts a run and waits until its middle task runs."""
    started = []

    def start(dag_id="held", on=stack):
        folder = tmp_path / f"run-{len(started)}"
        folder.mkdir()
        run = on.run(DAG, dag_id=dag_id, conf={"folder": str(folder)})
        started.append((on, run))
        run.folder = folder
        until(lambda: traced(run, "middle starts"), "the middle task runs")
        return run

    yield start
    for on, run in started:
        if on.is_running:
            run.cancel()


@pytest.fixture
def command(stack, capsys):
    """Return a function that runs a command on the shared stack."""

    def command(*arguments):
        code = main.main([*arguments, "--home", str(stack.home)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def cancels(stack, run):
    (history,) = histories(stack, run)
    return any(
        event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED for event in history.events
    )


def traced(run, prefix):
    return lines(run.folder / "trace", prefix)


def go(run):
    (run.folder / "go").touch()


def histories(stack, run):
    async def fetch(client):
        found = [e async for e in client.list_workflows(f"WorkflowId = '{run.workflow_id}'")]
        return [await client.get_workflow_handle(e.id, run_id=e.run_id).fetch_history() for e in found]

    return with_client(stack, fetch)


def test_cancelling_calls_on_kill_of_the_task_but_no_callback_of_the_run(start):
    run = start()
    assert run.cancel() == "failed"
    until(lambda: traced(run, "middle on_kill"), "on_kill runs")
    assert run.wait(timeout=10) == "failed"
    assert [*run.tasks["state"]] == ["success", "failed", "skipped", "skipped"]
    assert run.cancel() == "failed"
    assert not traced(run, "the run failed")


def test_clear_returns_the_cleared_tasks_and_wait_waits_for_the_new_end(start, stack):
    run = start()
    go(run)
    assert run.wait(timeout=30) == "success"
    cleared = run.clear("middle", downstream=True)
    assert [*zip(cleared["task_id"], cleared["map_index"], strict=True)] == [
        ("middle", -1),
        ("each", 0),
        ("each", 1),
    ]
    assert run.wait(timeout=30) == "success"
    assert tries(run) == {"first": 1, "middle": 2, "each": 2}
    assert [*run.clear("each", map_index=1)["map_index"]] == [1]
    assert run.wait(timeout=30) == "success"
    assert [*run.tasks["try_number"]] == [1, 2, 2, 3]
    assert run.clear(only_failed=True).empty
    assert run.state == "success"
    for history in histories(stack, run):
        in_a_loop(Replayer(workflows=[ExecuteAirflowDagDeepWorkflow]).replay_workflow(history))


def test_a_run_that_was_cleared_twice_and_cancelled_can_be_cleared_again(start):
    run = start()
    run.clear("middle")
    run.clear("middle")
    until(lambda: traced(run, "middle starts try 2"), "it runs again")
    run.cancel()
    run.clear()
    go(run)
    assert run.wait(timeout=60) == "success"
    assert states(run) == ENDED


def test_the_workflow_shows_marked_tasks(start, stack):
    run = start()
    run.mark("success", "middle")
    assert run.wait(timeout=30) == "success"
    assert traced(run, "middle on_kill")

    async def query(client):
        return await client.get_workflow_handle(run.workflow_id).query("task_states")

    shown = {(ti["task_id"], ti["map_index"]): ti["state"] for ti in with_client(stack, query)}
    assert shown == dict.fromkeys([("first", -1), ("middle", -1), ("each", 0), ("each", 1)], "success")


@pytest.mark.parametrize("workflow_has_cancelled", [False, True])
def test_a_cleared_task_runs_again_although_its_worker_is_lost(
    start, tmp_path_factory, workflow_has_cancelled
):
    from temporal_airflow_nb import LocalStack

    with LocalStack(tmp_path_factory.mktemp("lost") / "home") as stack:
        run = start(on=stack)
        run.clear("middle")
        if workflow_has_cancelled:
            until(lambda: cancels(stack, run), "the workflow asks to cancel the try")
        kill(pid_of(stack, "worker"))
        until(lambda: traced(run, "middle starts try 2"), "it runs again", timeout=60)
        go(run)
        assert run.wait(timeout=60) == "success"
        assert tries(run) == {"first": 1, "middle": 2, "each": 1}


def test_the_dagrun_timeout_of_a_cleared_run_starts_again(start):
    run = start("held_for_long")
    run.cancel()
    run.clear()
    until(lambda: traced(run, "middle starts try 2"), "it runs again")
    assert run.wait(timeout=30) == "failed"
    assert [*run.tasks["state"]] == ["skipped"]
    run.clear()
    go(run)
    assert run.wait(timeout=30) == "success"


def test_a_cleared_run_waits_for_max_active_runs(start):
    first = start("held_one_by_one")
    go(first)
    assert first.wait(timeout=30) == "success"
    second = start("held_one_by_one")
    first.clear()
    assert first.state == "queued"
    go(second)
    assert second.wait(timeout=30) == "success"
    assert first.wait(timeout=30) == "success"
    assert tries(first) == {"middle": 2}


@pytest.mark.parametrize("which", [{"task_ids": "midle"}, {"task_ids": "middle", "map_index": 3}], ids=str)
def test_a_task_that_the_run_does_not_have_is_refused(start, which):
    run = start()
    for act in (run.clear, lambda **chosen: run.mark("failed", **chosen)):
        with pytest.raises(RunNotFoundError, match=r"Did you mean middle|It isn't mapped"):
            act(**which)
    assert states(run)["middle"] == "running"


def test_invalid_marks_are_refused(start):
    run = start()
    with pytest.raises(InvalidInputError, match="already"):
        run.mark("success", "first")
    with pytest.raises(InvalidInputError, match="success, failed"):
        run.mark("skipped")
    with pytest.raises(TypeError, match="need task_ids"):
        run.mark("failed", downstream=True)
    assert states(run)["middle"] == "running"


def test_mark_and_clear_commands(start, command):
    run = start()
    code, out, err = command("mark", "failed", "held", "--task", "middle", "--wait", "--output", "json")
    shown = json.loads(out)
    assert code == 1
    assert list(shown) == ["dag_id", "run_id", "workflow_id", "state", "tasks"]
    assert (shown["run_id"], shown["state"]) == (run.run_id, "failed")
    assert "Changed: middle" in err
    go(run)
    code, out, _ = command("clear", "held", run.run_id, "--task", "middle", "--downstream", "--wait")
    assert code == 0
    assert "Cleared: middle, each" in out
    assert "success" in out
    code, out, _ = command("clear", "held", "--only-failed")
    assert (code, out.splitlines()[0]) == (0, "Cleared: no task")
    assert command("mark", "failed", "held")[0] == 0
    assert run.state == "failed"


def test_the_cancel_command_takes_the_latest_run(start, command):
    other, run = start(), start()
    code, out, _ = command("cancel", "held", "--output", "json", "--wait")
    assert (code, json.loads(out)["run_id"]) == (0, run.run_id)
    assert (run.state, other.state) == ("failed", "running")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cancel", "helt"), "Did you mean held"),
        (("cancel", "held", "nope"), "Its latest are: "),
        (("clear", "held", "--task", "midle"), "Did you mean middle?"),
        (("mark", "success", "held", "--task", "each", "--map-index", "7"), "has no map_index 7"),
        (("mark", "success", "held", "--task", "first"), "already"),
        (("mark", "skipped", "held"), "Choose one of: success, failed"),
        (("clear", "held", "--downstream"), "need --task"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_invalid_commands_are_bad_input(start, command, arguments, message):
    start()
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_commands_find_a_configured_cluster(start, stack, monkeypatch, tmp_path, capsys):
    run = start()
    for name, value in stack.status()["env"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "none"))
    assert main.main(["cancel", "held", run.run_id, "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "failed"
    until(lambda: traced(run, "middle on_kill"), "on_kill runs")
