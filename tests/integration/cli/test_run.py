"""``temporal-airflow run``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pexpect
import pytest

from temporal_airflow_nb import LocalStack, Run
from temporal_airflow_nb.cli.run import as_data, changed_lines
from temporal_airflow_nb.display.model import build_grid
from tests.support.snapshots import at, mapped, snapshot, task

DAGS = """
import time
from airflow.sdk import dag, get_current_context, task

@dag(schedule=None, params={"seconds": 0.0})
def good():
    @task
    def nap():
        time.sleep(get_current_context()["params"]["seconds"])

    @task
    def add(n):
        return n + 1

    nap() >> add.expand(n=[1, 2, 3])

@dag(schedule=None)
def bad():
    @task
    def parse():
        raise ValueError("not a date")

    @task
    def load():
        pass

    parse() >> load()

good()
bad()
"""
COMMAND = [sys.executable, "-m", "temporal_airflow_nb.cli.main", "run"]


@pytest.fixture
def dags(tmp_path):
    path = tmp_path / "dags.py"
    path.write_text(DAGS)
    return str(path)


@pytest.fixture
def run(dags, stack):
    """Run the command to its end, on the stack that tests share."""

    def run(*options, path=dags, home=stack.home):
        command = [*COMMAND, path, "--home", str(home), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=150, stdin=subprocess.DEVNULL)

    return run


def test_changes_are_printed_once_with_tries_and_durations():
    first = build_grid(
        snapshot(task("a", "success", 0.0, 1.0), *mapped("b", "running", "queued"), task("c")), now=at(2)
    )
    assert list(changed_lines({}, first)) == ["✓ a success (1.00 s)", "▸ b[0] running"]
    known = {instance.name: instance for instance in first.instances}
    assert list(changed_lines(known, first)) == []
    retried = task("b", "running", 1.5, map_index=0, try_number=2, max_tries=2)
    second = build_grid(snapshot(task("a", "success", 0.0, 1.0), retried), now=at(2))
    assert list(changed_lines(known, second)) == ["▸ b[0] running (try 2 of 3)"]


def test_the_json_of_a_run_has_the_documented_keys():
    data = as_data(snapshot(task("a", "success", 0.0, 1.0)))
    assert list(data) == ["dag_id", "run_id", "workflow_id", "state", "tasks"]
    assert list(data["tasks"][0]) == ["task_id", "map_index", "state", "try_number", "start_date", "end_date"]


def test_without_a_terminal_it_prints_a_line_for_each_change(run):
    done = run("--dag-id", "good")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if re.match(r"✓ add\[1\] success \(\d+\.\d\d s\)", line)]
    assert re.match(r"✓ good · manual__\S+ · success · [\d.]+ s", lines[-2])
    assert lines[-1].startswith("Temporal: http://127.0.0.1:")
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_json_output_contains_only_json(run):
    done = run("--dag-id", "good", "--output", "json")
    assert done.returncode == 0
    data = json.loads(done.stdout)
    assert (data["state"], data["workflow_id"]) == ("success", f"airflow-good-{data['run_id']}")
    assert {(t["task_id"], t["map_index"], t["state"]) for t in data["tasks"]} == {
        ("nap", -1, "success"),
        *(("add", i, "success") for i in range(3)),
    }
    assert "good" in done.stderr


def test_a_failed_run_shows_why_and_exits_with_1(run):
    done = run("--dag-id", "bad")
    assert done.returncode == 1
    assert "✗ parse failed at try 1. The end of its log:" in done.stdout
    assert "ValueError: not a date" in done.stdout
    assert "⊘ load upstream failed" in done.stdout


def test_no_wait_returns_before_the_run_ends(run, stack):
    done = run("--dag-id", "good", "--conf", '{"seconds": 3.0}', "--no-wait", "--output", "json")
    assert done.returncode == 0
    data = json.loads(done.stdout)
    assert data["state"] in ("queued", "running")
    assert Run(stack.client, data["dag_id"], data["run_id"]).wait(timeout=60) == "success"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--conf", "{"], "conf is not JSON"),
        (["--conf", "[]"], "conf is a list"),
        (["--mode", "fast"], "invalid choice: 'fast'"),
        (["--connections", "nope.json"], "--connections: there is no file nope.json"),
        (["--variables", "nope.json"], "--variables: there is no file nope.json"),
    ],
)
def test_bad_options_are_refused_before_anything_starts(run, tmp_path, options, message):
    done = run(*options, home=tmp_path / "home")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("path", ["nope.py", "."])
def test_a_missing_file_is_refused_before_anything_starts(run, tmp_path, path):
    done = run(path=path, home=tmp_path / "home")
    assert (done.returncode, done.stdout) == (2, "")
    assert not (tmp_path / "home").exists()


def test_a_file_with_several_dags_needs_a_dag_id(run):
    done = run()
    assert done.returncode == 2
    assert "defines 2 DAGs: bad, good" in done.stderr
    assert "--dag-id" in done.stderr


def test_an_interrupt_without_a_terminal_leaves_the_run_and_prints_how_to_wait(dags, stack):
    command = [*COMMAND, dags, "--home", str(stack.home), "--dag-id", "good", "--conf", '{"seconds": 6.0}']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    for line in process.stdout:
        if "nap running" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(20) == 130
    assert "goes on" in rest
    code = "\n".join(line.strip() for line in rest.splitlines() if line.startswith("  "))
    names = {}
    exec(code.replace(".wait()", ".wait(timeout=60)").replace("ta.Run(", "run = ta.Run("), names)
    assert names["run"] == "success"
    assert stack.is_running


@pytest.fixture
def terminal(dags, stack):
    """The command in a terminal, napping for a minute."""
    command = [*COMMAND, dags, "--home", str(stack.home), "--dag-id", "good", "--conf", '{"seconds": 60}']
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "110", "LINES": "30"}
    child = pexpect.spawn(
        command[0], command[1:], env=env, encoding="utf-8", timeout=60, dimensions=(30, 110)
    )
    child.expect("nap .*running")
    yield child
    child.close(force=True)


def last_run(stack):
    newest = stack.client.list_runs("good", limit=1)[0]
    return Run(stack.client, newest["dag_id"], newest["run_id"])


def test_in_a_terminal_the_run_can_be_cancelled(terminal, stack):
    terminal.sendintr()
    terminal.expect(r"Cancel the run, or leave it running\? \[c/L\]")
    terminal.sendline("c")
    terminal.expect("failed")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 1
    assert last_run(stack).state == "failed"


@pytest.mark.parametrize("answer", ["", "L", "interrupt"])
def test_in_a_terminal_the_run_can_be_left(terminal, stack, answer):
    terminal.sendintr()
    terminal.expect(r"\[c/L\]")
    terminal.sendintr() if answer == "interrupt" else terminal.sendline(answer)
    terminal.expect("goes on")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    run = last_run(stack)
    assert run.state == "running"
    run.cancel()


@pytest.mark.slow
def test_a_stack_started_for_the_run_ends_with_it(run, tmp_path):
    done = run("--dag-id", "good", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "temporal-airflow up" in done.stdout
    assert not LocalStack(tmp_path / "home").is_running


@pytest.mark.slow
def test_a_run_that_is_left_keeps_its_stack(dags, tmp_path):
    stack = LocalStack(tmp_path / "home")
    command = [*COMMAND, dags, "--home", str(stack.home), "--dag-id", "good", "--conf", '{"seconds": 3.0}']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    try:
        for line in process.stdout:
            if "nap running" in line:
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(20) == 130
        assert stack.is_running
        assert last_run(stack).wait(timeout=60) == "success"
    finally:
        stack.stop()
    assert not stack.is_running


@pytest.mark.slow
def test_no_wait_keeps_its_stack(run, tmp_path):
    stack = LocalStack(tmp_path / "home")
    try:
        done = run("--dag-id", "good", "--no-wait", home=stack.home)
        assert done.returncode == 0, done.stderr
        assert "temporal-airflow down" in done.stdout
        assert last_run(stack).wait(timeout=60) == "success"
    finally:
        stack.stop()
