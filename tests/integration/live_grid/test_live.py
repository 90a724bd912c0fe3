"""The live grid, as a real kernel publishes it."""

from __future__ import annotations

import os
import re
import signal
import time

import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from temporal_airflow_nb import LocalStack
from tests.support.shells import state_shown
from tests.support.waiting import until

DAG = """%%temporal_dag {options}
import time
from airflow.sdk import dag, get_current_context, task

@dag(schedule=None, params={{"seconds": 2.5}})
def watched():
    @task
    def first():
        pass

    @task
    def nap():
        time.sleep(get_current_context()["params"]["seconds"])

    @task
    def many(n):
        time.sleep(0.1)

    first() >> nap() >> many.expand(n=list(range(10)))

watched()"""


def dag(options=""):
    return DAG.format(options=options)


def is_final(message):
    return state_shown(message) in ("success", "failed")


def end_run(kernel):
    kernel.run("run.cancel()")
    kernel.collect(is_final, timeout=30)


def test_the_cell_returns_at_once_and_its_grid_goes_on_by_itself(kernel):
    kernel.run(dag())
    assert kernel.value("6 * 7") == 42
    assert kernel.value("run.state") in ("queued", "running")
    assert kernel.collect(is_final, timeout=60) is not None
    kernel.collect()

    pictures = kernel.displays()
    assert [message["msg_type"] for message in pictures] == ["display_data"] + ["update_display_data"] * (
        len(pictures) - 1
    )
    assert len({message["content"]["transient"]["display_id"] for message in pictures}) == 1
    states = [state for state in map(state_shown, pictures) if state]
    assert states[-1] == "success"
    assert "running" in states
    assert states.count("success") == 1

    running = [m["content"]["data"]["text/html"] for m in pictures if state_shown(m) == "running"]
    assert any("nap" in html and "ta-sign ta-running" in html for html in running)
    assert set(pictures[-1]["content"]["data"]) == {"text/html", "text/plain"}
    assert "✓ many [10]" in pictures[-1]["content"]["data"]["text/plain"]
    assert kernel.said() == ""


def test_at_most_about_eight_pictures_a_second(kernel):
    kernel.run(dag("""--conf '{{"seconds": 0}}'""".replace("{{", "{").replace("}}", "}")))
    assert kernel.collect(is_final, timeout=60) is not None
    moments = [when for when, message in kernel.messages if state_shown(message) == "running"]
    for begin in moments:
        assert sum(begin <= when < begin + 1 for when in moments) <= 9


def test_a_notebook_keeps_one_static_grid(stack, monkeypatch, tmp_path):
    monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", str(stack.home))
    sources = ["%load_ext temporal_airflow_nb", dag(), "print('meanwhile')", "run.wait()", "1 + 1"]
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    nbformat.validate(notebook)
    (grid,) = notebook.cells[1].outputs
    assert grid.metadata["temporal_airflow"]["state"] == "success"
    assert "ta-pill ta-success" in grid.data["text/html"]
    assert "<script" not in grid.data["text/html"]
    assert [cell.outputs[0].get("text", cell.outputs[0].get("data")) for cell in notebook.cells[2:]] == [
        "meanwhile\n",
        {"text/plain": "'success'"},
        {"text/plain": "2"},
    ]


def test_two_runs_have_a_grid_each(kernel):
    kernel.run(dag())
    kernel.run("first = run")
    kernel.run(dag())
    grids = set()
    while len(grids) < 2 and (message := kernel.collect(is_final, timeout=60)):
        grids.add(message["content"]["transient"]["display_id"])
    assert len(grids) == 2
    assert kernel.value("first.run_id != run.run_id")


def test_waiting_can_be_interrupted_and_the_run_goes_on(kernel):
    request = kernel.client.execute(dag("""--wait --conf '{"seconds": 60}'"""))
    assert kernel.collect(lambda message: state_shown(message) == "running", timeout=60)
    begun = time.monotonic()
    kernel.manager.interrupt_kernel()
    reply = kernel.reply_to(request, timeout=10)
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert time.monotonic() - begun < 3
    assert kernel.value("run.state") == "running"
    end_run(kernel)


FAILS = """%%temporal_dag {options}
from airflow.sdk import dag, task

@dag(schedule=None)
def fails():
    @task
    def parse():
        print("parsing")
        raise ValueError("not a date")

    parse()

fails()"""


def test_a_failure_is_told_in_the_grid_and_where_it_is_waited_for(kernel):
    kernel.run(FAILS.format(options="--wait"))
    kernel.collect()
    grid = kernel.displays()[-1]["content"]["data"]
    for said in (
        "✗ parse failed",
        "    ValueError: not a date",
        '▸  9         raise ValueError("not a date")',
        "parsing",
        '    Next: run.logs("parse")   run.clear("parse", downstream=True)',
    ):
        assert said in grid["text/plain"]
    assert re.search(r"^    In \[\d+\], line 9, in parse$", grid["text/plain"], re.MULTILINE)
    assert "ta-failure" in grid["text/html"]
    assert len({m["content"]["transient"]["display_id"] for m in kernel.displays()}) == 1

    kernel.run("run.wait()")
    kernel.collect()
    told = kernel.displays()[-1]
    assert (told["msg_type"], told["content"]["transient"]) == ("display_data", {})
    assert told["content"]["data"]["text/plain"].startswith("✗ parse failed")
    assert kernel.value("[f.exception for f in run.failures]") == ["ValueError: not a date"]


def test_the_grid_of_a_run_that_is_cleared_goes_on(kernel):
    kernel.run(dag("""--wait --conf '{"seconds": 0}'"""))
    kernel.collect()
    kernel.run('run.clear("nap", downstream=True)')
    kernel.run("run.wait()")
    kernel.collect()
    states = [state for state in map(state_shown, kernel.displays()) if state]
    assert states.count("success") == 2
    assert states[-1] == "success"
    assert "running" in states[states.index("success") :]


def test_in_vs_code_the_output_is_a_widget_until_the_run_has_ended(start_kernel, stack, monkeypatch):
    monkeypatch.setenv("VSCODE_PID", "1")
    kernel = start_kernel(stack.home)
    kernel.run(dag("--wait"))
    kernel.collect()
    view = "application/vnd.jupyter.widget-view+json"
    pictures = [m["content"]["data"] for m in kernel.displays() if state_shown(m)]
    assert [view in picture for picture in pictures] == [True, False]
    assert all({"text/html", "text/plain"} <= set(picture) for picture in pictures)


def test_a_run_at_the_end_of_a_cell_shows_itself(kernel):
    kernel.run(dag("--wait"))
    kernel.messages.clear()
    kernel.run("run")
    kernel.collect()
    (shown,) = [m["content"]["data"] for _, m in kernel.messages if m["msg_type"] == "execute_result"]
    assert shown["text/plain"].startswith("✓ watched")
    assert "ta-run" in shown["text/html"]

    kernel.run('run.clear("nap", downstream=True)')
    kernel.run("run")
    assert kernel.collect(lambda m: state_shown(m) == "running", timeout=30)
    assert kernel.collect(lambda m: is_final(m) and m["msg_type"] == "update_display_data", timeout=60)


def test_an_error_is_shown_in_place_of_the_progress(kernel):
    reply = kernel.run("%%temporal_dag\nprint('no DAG')\n", errors=True)
    assert reply["ename"] == "DagFileError"
    assert reply["traceback"] == [f"DagFileError: {reply['evalue']}"]
    kernel.collect()
    assert "didn't succeed" in kernel.displays()[-1]["content"]["data"]["text/plain"]


def test_a_grid_that_is_closed_leaves_nothing_in_the_kernel(start_kernel, stack, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "some.ipynb")
    kernel = start_kernel(stack.home)
    kernel.run(dag("""--wait --conf '{"seconds": 0}'"""))
    kernel.run("from comm import get_comm_manager\nfrom temporal_airflow_nb.live_grid import live")
    comms = "len(get_comm_manager().comms)"
    threads = "[t.name for t in __import__('threading').enumerate() if t.name == 'temporal-airflow-watched']"
    until(lambda: kernel.value(comms))
    before = kernel.value(comms)
    kernel.run("for _ in range(3): run.show()")
    until(lambda: kernel.value(comms) > before)
    kernel.run("live.close_all('')")
    until(lambda: kernel.value(threads) == [])
    assert kernel.value(comms) == 0
    left = "sum(isinstance(thing, live.LiveGrid) for thing in __import__('gc').get_objects())"
    until(lambda: kernel.value(f"(__import__('gc').collect(), {left})[1]") == 0)


@pytest.fixture
def own_stack(tmp_path):
    """A stack whose processes may be killed."""
    with LocalStack(tmp_path / "home") as stack:
        yield stack


@pytest.mark.slow
def test_a_lost_connection_is_shown_and_comes_back(start_kernel, own_stack):
    kernel = start_kernel(own_stack.home)
    kernel.run(dag("""--conf '{"seconds": 8}'"""))
    assert kernel.collect(lambda message: "ta-sign ta-running" in str(message["content"]), timeout=60)
    worker = next(row for row in own_stack.status()["services"] if row["name"] == "worker")
    os.kill(worker["pid"], signal.SIGKILL)
    assert kernel.collect(
        lambda message: "connection to the stack is lost" in str(message["content"]), timeout=15
    )
    final = kernel.collect(is_final, timeout=90)
    assert state_shown(final) == "success"
    assert "connection" not in final["content"]["data"]["text/plain"]
    assert kernel.said() == ""


@pytest.mark.slow
def test_ending_the_stack_is_noted_in_the_grid(start_kernel, own_stack):
    kernel = start_kernel(own_stack.home)
    kernel.run(dag("""--conf '{"seconds": 60}'"""))
    kernel.run("%temporal_down")
    kernel.collect()
    assert "The stack was ended" in kernel.displays()[-1]["content"]["data"]["text/html"]
    assert kernel.said() == "The stack is down.\n"
    assert (
        kernel.value(
            "[t.name for t in __import__('threading').enumerate() if t.name == 'temporal-airflow-watched']"
        )
        == []
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", ["shutdown", "kill"])
def test_a_stack_ends_with_the_kernel_that_started_it(start_kernel, tmp_path, how):
    kernel = start_kernel(tmp_path / "home")
    kernel.run("%config TemporalDag.linger = 1")
    kernel.run(dag("--wait"), timeout=150)
    kernel.collect()
    assert "Starting the stack" in kernel.displays()[0]["content"]["data"]["text/plain"]
    stack = LocalStack(tmp_path / "home")
    pids = [row["pid"] for row in stack.status()["services"] if row["pid"]]
    assert stack.is_running
    kernel.manager.shutdown_kernel(now=how == "kill")
    deadline = time.monotonic() + 20
    while (stack.is_running or any(map(psutil.pid_exists, pids))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not stack.is_running
    assert not any(map(psutil.pid_exists, pids))
