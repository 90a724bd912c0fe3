"""A run survives the death of its processes."""

from __future__ import annotations

import pytest

from tests.support.stack_helpers import DAGS, kill, lines, pid_of, psutil, states, tries, until, zygote_of


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A stack whose processes may be killed."""
    from temporal_airflow_nb import LocalStack

    with LocalStack(tmp_path_factory.mktemp("lost") / "home") as stack:
        yield stack


def start(stack, tmp_path, seconds):
    trace = tmp_path / "trace"
    run = stack.run(DAGS / "interrupted.py", conf={"trace": str(trace), "seconds": seconds})
    line = until(lambda: lines(trace, "middle-1"), "the middle task runs")[0]
    return run, trace, int(line.split()[1])


def assert_completed(run, trace, middle_runs):
    assert run.wait(timeout=60) == "success"
    assert len(lines(trace, "before")) == 1, "a finished task ran again"
    assert len(lines(trace, "middle-1")) == middle_runs
    assert lines(trace, "middle-2") == [], "the interruption used up a try"
    assert len(lines(trace, "after")) == 1
    assert set(tries(run).values()) == {1}


def test_a_killed_worker_interrupts_a_task_once(stack, tmp_path):
    run, trace, task_pid = start(stack, tmp_path, 4)
    worker = pid_of(stack, "worker")
    kill(worker)
    until(lambda: not psutil.pid_exists(task_pid), "the task ends with its worker", timeout=5)
    assert_completed(run, trace, middle_runs=2)
    assert pid_of(stack, "worker") != worker
    assert "worker was lost" in str(run.logs("middle"))


def test_a_task_of_a_killed_zygote_runs_again(stack, tmp_path):
    run, trace, task_pid = start(stack, tmp_path, 3)
    kill(zygote_of(task_pid).pid)
    assert_completed(run, trace, middle_runs=2)


def test_a_killed_root_zygote_is_replaced_when_a_file_needs_packages(stack, tmp_path):
    path = tmp_path / "with_packages.py"
    path.write_text(
        "import numpy\nfrom airflow.sdk import DAG, task\n"
        "with DAG('with_packages', schedule=None):\n    task(task_id='a')(lambda: 1)()\n"
    )
    assert stack.run(path).wait(timeout=60) == "success"
    (root,) = psutil.Process(pid_of(stack, "worker")).children()
    for _ in range(2):
        # The second time, no other package zygote is left either, and this file's imports are known.
        root.kill()
        assert stack.run(path).wait(timeout=60) == "success"
        (root,) = [p for p in psutil.Process(pid_of(stack, "worker")).children() if p.status() != "zombie"]


def test_a_task_of_a_killed_package_zygote_runs_again(stack, tmp_path):
    dags = tmp_path / "dags"
    dags.mkdir()
    path = dags / "interrupted.py"
    path.write_text(
        (DAGS / "interrupted.py")
        .read_text()
        .replace("import annotations", "import annotations\nimport numpy", 1)
    )
    trace = tmp_path / "trace"
    run = stack.run(path, conf={"trace": str(trace), "seconds": 3})
    task_pid = int(until(lambda: lines(trace, "middle-1"), "the middle task runs")[0].split()[1])
    zygote = zygote_of(task_pid)
    assert zygote.ppid() != pid_of(stack, "worker")
    root = zygote.ppid()
    kill(zygote.pid)
    assert_completed(run, trace, middle_runs=2)
    assert psutil.pid_exists(root)


def test_a_killed_temporal_server_interrupts_no_task(stack, tmp_path):
    run, trace, _ = start(stack, tmp_path, 4)
    server = pid_of(stack, "temporal")
    kill(server)
    assert_completed(run, trace, middle_runs=1)
    assert pid_of(stack, "temporal") != server


def test_a_killed_task_is_a_failed_try(stack, tmp_path):
    run, _, task_pid = start(stack, tmp_path, 60)
    kill(task_pid)
    assert run.wait(timeout=30) == "failed"
    assert states(run) | {"before": "success"} == {
        "before": "success",
        "shell": "success",
        "middle": "failed",
        "after": "upstream_failed",
    }


def test_nothing_is_left_of_a_shell_whose_worker_was_killed(stack, tmp_path):
    trace = tmp_path / "trace"
    run = stack.run(DAGS / "stubborn.py", conf={"trace": str(trace)})
    shell = int(until(lambda: lines(trace, ""), "the shell runs")[0])
    kill(pid_of(stack, "worker"))
    until(lambda: not psutil.pid_exists(shell), "the shell ends with its worker", timeout=15)
    until(lambda: len(lines(trace, "")) == 2, "the try is run again", timeout=40)
    run.cancel()
    assert run.wait(timeout=30) == "failed"


def test_cancel_ends_the_tasks_whole_process_group(stack, tmp_path):
    trace = tmp_path / "trace"
    run = stack.run(DAGS / "stubborn.py", conf={"trace": str(trace)})
    shell = psutil.Process(int(until(lambda: lines(trace, ""), "the shell runs")[0]))
    family = [shell, *shell.children(recursive=True)]
    run.cancel()
    assert run.wait(timeout=30) == "failed"
    until(lambda: not any(process.is_running() for process in family), "the shell and its sleep are gone", 15)
    assert states(run) == {"sleeps": "failed"}


def test_a_try_that_is_interrupted_again_and_again_fails(stack, tmp_path):
    trace = tmp_path / "trace"
    run = stack.run(DAGS / "kills_its_zygote.py", conf={"trace": str(trace)})
    assert run.wait(timeout=90) == "failed"
    assert lines(trace, "") == ["try-1"] * 4, "a try is run again three times"
    assert states(run) == {"kills": "failed"}


def test_a_run_can_choose_that_interrupted_tries_fail(stack, tmp_path):
    trace = tmp_path / "trace"
    run = stack.run(DAGS / "kills_its_zygote.py", conf={"trace": str(trace)}, worker_lost="fail")
    assert run.wait(timeout=60) == "failed"
    assert lines(trace, "") == ["try-1"]
    run.clear()
    assert run.wait(timeout=60) == "failed"
    assert lines(trace, "") == ["try-1", "try-2"]


def test_a_worker_can_choose_that_interrupted_tries_fail(tmp_path, monkeypatch):
    from temporal_airflow_nb import LocalStack

    monkeypatch.setenv("TEMPORAL_AIRFLOW_ON_WORKER_LOST", "fail")
    with LocalStack(tmp_path / "home") as stack:
        trace = tmp_path / "trace"
        run = stack.run(DAGS / "kills_its_zygote.py", conf={"trace": str(trace)})
        assert run.wait(timeout=60) == "failed"
        assert lines(trace, "") == ["try-1"]
