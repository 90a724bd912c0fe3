"""Tests which stack a kernel uses, and what happens to it when the kernel restarts, dies or ends."""

from __future__ import annotations

import pytest

from temporal_airflow_nb import LocalStack
from temporal_airflow_nb.stack import current, state_folder
from tests.support.waiting import until

CELL = """
%%temporal_dag
import pathlib, time
from airflow.sdk import dag, task

@dag(schedule=None)
def held():
    @task
    def hold():
        while not pathlib.Path({gate!r}).exists():
            time.sleep(0.05)
    hold()

held()
"""


@pytest.fixture(autouse=True)
def nothing_used():
    yield
    current.use(None)


def test_the_embedded_stack_of_the_state_folder_is_the_current_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", str(tmp_path / "a"))
    assert current.current().home == tmp_path / "a"
    assert current.current() is current.current()
    assert current.current(tmp_path / "b").home == tmp_path / "b"


def test_a_used_stack_is_the_current_one_until_it_is_released(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", str(tmp_path / "a"))
    other = LocalStack(tmp_path / "other")
    current.use(other)
    assert current.current() is other
    assert current.current(tmp_path / "b").home == tmp_path / "b"
    current.use(None)
    assert current.current().home == tmp_path / "a"


def test_config_names_the_state_folder(shell, tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", str(tmp_path / "a"))
    shell.run(f"%config TemporalDag.home = {str(tmp_path / 'b')!r}")
    assert current.current().home == tmp_path / "b"
    assert current.current(tmp_path / "c").home == tmp_path / "c"


@pytest.mark.slow
def test_a_run_continues_when_its_kernel_is_killed_and_the_next_kernel_takes_over(start_kernel, tmp_path):
    home, gate = tmp_path / "home", tmp_path / "gate"
    kernel = start_kernel(home)
    kernel.run(CELL.format(gate=str(gate)).lstrip())
    run_id, stack_id = kernel.value("run.run_id"), state_folder.read_stack(home)["id"]

    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=60)
    kernel.run("%load_ext temporal_airflow_nb\n%temporal_show")
    assert kernel.value("run.run_id") == run_id
    assert kernel.value("run.state") == "running"

    other = start_kernel(home)
    other.run("%temporal_show held")
    kernel.manager.shutdown_kernel(now=False)
    assert state_folder.manager_is_running(home)
    assert state_folder.read_stack(home)["id"] == stack_id
    gate.touch()
    other.run("run.wait(60)")
    assert other.value("(run.run_id, run.state)") == (run_id, "success")

    other.manager.restart_kernel(now=False)
    other.client.wait_for_ready(timeout=60)
    other.run("import temporal_airflow_nb as ta; run = ta.runs.latest()")
    assert other.value("run.run_id") == run_id
    assert state_folder.read_stack(home)["id"] == stack_id
    other.manager.shutdown_kernel(now=False)
    assert until(lambda: not state_folder.manager_is_running(home), timeout=30)


@pytest.mark.slow
def test_a_stack_ends_when_its_kernel_was_killed_and_no_other_kernel_comes(start_kernel, tmp_path):
    home = tmp_path / "home"
    kernel = start_kernel(home)
    kernel.run("%config TemporalDag.linger = 1\n%temporal_up")
    assert state_folder.read_stack(home)["lingers"]
    kernel.manager.shutdown_kernel(now=True)
    assert until(lambda: not state_folder.manager_is_running(home), timeout=30)
