"""Tests the state of the widget, and the messages between a page and a real kernel."""

from __future__ import annotations

import copy
import json
import time

import pytest

from temporal_airflow_nb.display.model import build_grid
from temporal_airflow_nb.display.states import STATE_STYLES
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.live_grid import page_requests
from temporal_airflow_nb.live_grid.front_end import FrontEnd, front_end
from temporal_airflow_nb.live_grid.grid_state import GridState
from tests.support.shells import state_shown
from tests.support.snapshots import at, mapped, task
from tests.support.waiting import until


def run_row(run_id="one", state="running", second=0, **facts):
    moments = {"start_date": at(second).isoformat(), "end_date": None, "run_after": at(second).isoformat()}
    return (
        {"run_id": run_id, "state": state, "run_type": "manual", "version": 1, "note": None} | moments | facts
    )


def node(task_id, **facts):
    return {"id": task_id, "label": task_id, "kind": "task", "parent": None, "mapped": False, **facts}


def answer(**facts):
    nothing = {"structure": None, "runs": [run_row()], "tasks": [], "removed": [], "cells": {}, "dropped": []}
    said = {"cursor": "c", "full": False, "now": at(9).isoformat(), "dag_id": "etl", "run_id": "one"}
    return {**said, "workflow_id": "airflow-etl-one", "links": {"temporal": "http://x"}, **nothing, **facts}


def full_answer(**facts):
    return answer(
        full=True,
        structure={"version": 1, "nodes": [node("b"), node("a")], "edges": [["b", "a"]]},
        runs=[run_row("one", second=5), run_row("zero", "success", 1)],
        tasks=[task("a"), *mapped("b", None, None)],
        cells={"zero": {"a": {"success": 1}}},
        **facts,
    )


@pytest.fixture
def state():
    state = GridState("etl", "one")
    assert state.apply(full_answer()) == {"type": "full"}
    return state


def keys(tasks):
    return [(task["task_id"], task["map_index"]) for task in tasks]


def test_the_full_state_has_everything_a_page_needs(state):
    full = state.full_state()
    assert (full["seq"], full["dag_id"], full["run_id"]) == (1, "etl", "one")
    assert full["workflow_id"] == "airflow-etl-one"
    assert [run["run_id"] for run in full["runs"]] == ["one", "zero"]
    assert keys(full["tasks"]) == [("b", 0), ("b", 1), ("a", -1)]
    assert full["cells"] == {"zero": {"a": {"success": 1}}}
    assert set(full["state_styles"]) == set(STATE_STYLES)
    assert full["state_styles"]["up_for_retry"]["words"] == "up for retry"
    assert set(full["state_order"]) == set(STATE_STYLES)
    json.dumps(full)


def test_an_answer_without_changes_is_no_change(state):
    assert state.apply(answer(cursor="d", runs=[run_row("one", second=5)])) is None
    assert (state.cursor, state.seq) == ("d", 1)


def test_changes_are_numbered_and_merged(state):
    begun = task("a", "running", 1.0)
    delta = state.apply(answer(runs=[run_row("one", second=5)], tasks=[begun], removed=[["b", 1]]))
    assert (delta["type"], delta["seq"], delta["runs"]) == ("delta", 2, [])
    assert "cursor" not in delta
    assert keys(state.full_state()["tasks"]) == [("b", 0), ("a", -1)]

    ended = run_row("one", "failed", 5, end_date=at(8).isoformat())
    delta = state.apply(answer(runs=[ended], tasks=[task("a", "failed", 1.0, 2.0)]))
    assert (delta["seq"], delta["runs"]) == (3, [ended])
    assert state.ended
    assert keys(state.failed) == [("a", -1)]
    shown = build_grid(state.snapshot(), now=at(9))
    assert (shown.state, shown.seconds, [row.name for row in shown.rows]) == ("failed", 3.0, ["b", "a"])


def test_other_runs_are_added_changed_and_removed(state):
    focus = run_row("one", second=5)
    state.apply(answer(runs=[run_row("two", "queued", 7), focus], cells={"two": {"a": {"no_status": 1}}}))
    assert [run["run_id"] for run in state.full_state()["runs"]] == ["two", "one", "zero"]
    state.apply(answer(runs=[focus], cells={"two": {"a": {"running": 1}}}, dropped=["zero"]))
    assert state.full_state()["cells"] == {"two": {"a": {"running": 1}}}


def test_a_new_version_of_the_dag_replaces_the_structure(state):
    structure = {"version": 2, "nodes": [node("a"), node("b"), node("c")], "edges": []}
    assert state.apply(answer(structure=structure, runs=[run_row("one", second=5)]))["seq"] == 2
    assert state.full_state()["structure"] == structure
    assert keys(state.full_state()["tasks"]) == [("a", -1), ("b", 0), ("b", 1)]


def test_another_run_in_focus_starts_empty(state):
    state.focus("zero")
    assert state.cursor is None
    assert state.full_state()["tasks"] == []
    state.apply(full_answer())
    assert state.full_state()["run_id"] == "zero"
    assert state.seq == 2


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, FrontEnd.HTML),
        ({"JPY_SESSION_NAME": "a.ipynb"}, FrontEnd.MOUNTING),
        ({"JPY_SESSION_NAME": "a.ipynb", "VSCODE_PID": "1"}, FrontEnd.BUNDLE),
        ({"JPY_SESSION_NAME": "a.ipynb-jvsc-5f3e.ipynb"}, FrontEnd.BUNDLE),
        ({"COLAB_RELEASE_TAG": "r"}, FrontEnd.BUNDLE),
    ],
)
def test_front_ends_are_recognized_by_the_environment(environ, kind):
    class Shell:
        kernel = object()

    assert front_end(Shell(), environ) is kind
    assert front_end(object(), environ) is FrontEnd.TEXT


@pytest.mark.parametrize("request_", [{"op": "rm"}, {"op": "act", "action": "submit"}, {}])
def test_unknown_requests_of_a_page_are_refused(request_):
    with pytest.raises(InvalidInputError, match="There is no"):
        page_requests.answer(None, request_)


DAG = """%%temporal_dag
import time
from airflow.sdk import dag, get_current_context, task

@dag(schedule=None, params={"seconds": 0})
def asked():
    @task
    def first():
        print("hello from first")
        return 42

    @task
    def nap():
        time.sleep(get_current_context()["params"]["seconds"])

    @task
    def parse():
        raise ValueError("not a date")

    first() >> nap() >> parse()

asked()"""


class Page:
    """What a page does with the widget's comm."""

    def __init__(self, kernel, opened):
        self.kernel = kernel
        self.comm = opened["content"]["comm_id"]
        self.state = opened["content"]["data"]["state"]
        self.asked = 0

    def messages(self, kind):
        told = (m["content"] for _, m in self.kernel.messages if m["msg_type"] == "comm_msg")
        return [
            c["data"]["content"]
            for c in told
            if c["comm_id"] == self.comm and c["data"].get("content", {}).get("type") == kind
        ]

    def send(self, data, **header):
        content = {"comm_id": self.comm, "data": data}
        message = self.kernel.client.session.msg("comm_msg", content)
        message["header"].update(header)
        self.kernel.client.shell_channel.send(message)

    def ask(self, op, timeout=30, subshell=None, **body):
        self.asked += 1
        number = self.asked
        header = {} if subshell is None else {"subshell_id": subshell}
        request = {"type": "request", "id": number, "op": op, **body}
        self.send({"method": "custom", "content": request}, **header)

        def is_answer(message):
            data = message["content"].get("data") or {}
            content = data.get("content") or {} if message["msg_type"] == "comm_msg" else {}
            return content.get("type") == "answer" and content["id"] == number

        found = self.kernel.collect(is_answer, timeout=timeout)
        assert found is not None, f"no answer to {op}"
        return found["content"]["data"]["content"]


@pytest.fixture
def lab_kernel(start_kernel, stack, monkeypatch):
    """A kernel that takes its front end for JupyterLab."""
    monkeypatch.setenv("JPY_SESSION_NAME", "asked.ipynb")
    return start_kernel(stack.home)


def opens_a_grid(message):
    return message["msg_type"] == "comm_open" and "_esm" in message["content"]["data"]["state"]


def open_page(kernel, source=DAG):
    kernel.run(source)
    page = Page(kernel, kernel.collect(opens_a_grid, timeout=60))
    # What is sent before the comm has its callback gets lost; no page is that fast.
    assert kernel.collect(lambda message: message["msg_type"] == "comm_msg", timeout=60)
    return page


def merged(page):
    """Return the states of the tasks as the page knows them from the messages."""
    state, seq = copy.deepcopy(page.state["state"]), page.state["state"]["seq"]
    tasks = {(t["task_id"], t["map_index"]): t for t in state["tasks"]}
    for delta in page.messages("delta"):
        if delta["seq"] > seq:
            assert delta["seq"] == seq + 1
            seq = delta["seq"]
            tasks |= {(t["task_id"], t["map_index"]): t for t in delta["tasks"]}
    return {task_id: t["state"] for (task_id, _), t in tasks.items()}


def test_a_page_receives_the_state_changes_and_answers(lab_kernel):
    page = open_page(lab_kernel)
    assert set(page.ask("mounted")["data"]) == {"seq"}
    assert lab_kernel.collect(lambda m: state_shown(m) == "failed", timeout=60)
    lab_kernel.collect()
    assert merged(page) == {"first": "success", "nap": "success", "parse": "failed"}

    shown = [m["content"]["data"] for m in lab_kernel.displays()]
    assert all(set(data) == {"text/html", "text/plain"} for data in shown)
    assert f'data-ta-live="{page.state["key"]}"' in shown[-1]["text/html"]

    full = page.ask("full")["data"]
    assert full["seq"] == page.messages("delta")[-1]["seq"]
    assert full["connection"] == {"ok": True, "text": ""}
    assert full["follows"]
    assert full["production"] is None

    refused = page.ask("focus", run_id="never")
    assert not refused["ok"]
    assert "no run 'never'" in refused["error"]["message"]
    assert page.ask("nonsense")["error"]["hint"] == "Load the page again."

    acted = page.ask("act", action="clear", task_ids=["nap"], downstream=True)
    assert acted.get("data") == {"affected": 2}, acted
    assert lab_kernel.collect(lambda m: state_shown(m) == "failed", timeout=60)
    told = [run["state"] for delta in page.messages("delta") for run in delta["runs"]]
    assert told[-2:] == ["running", "failed"]
    assert merged(page)["parse"] == "failed"
    assert lab_kernel.said() == ""


def test_a_page_loaded_later_receives_the_present_state(lab_kernel):
    page = open_page(lab_kernel)
    assert lab_kernel.collect(lambda m: state_shown(m) == "failed", timeout=60)
    page.send({"method": "request_state"})

    def is_state(message):
        return message["msg_type"] == "comm_msg" and message["content"]["data"]["method"] == "update"

    update = lab_kernel.collect(is_state, timeout=30)
    state = update["content"]["data"]["state"]["state"]
    assert {t["task_id"]: t["state"] for t in state["tasks"]}["parse"] == "failed"


def test_a_page_moves_to_another_run_of_the_dag(lab_kernel):
    lab_kernel.run(DAG)
    lab_kernel.run("run.wait(); first = run")
    lab_kernel.collect()
    lab_kernel.messages.clear()
    page = open_page(lab_kernel)
    earlier = lab_kernel.value("first.run_id")
    assert earlier in [run["run_id"] for run in page.state["state"]["runs"]]
    assert page.ask("focus", run_id=earlier)["data"] == {}
    assert page.messages("full")[-1]["state"]["run_id"] == earlier
    moved = page.ask("full")["data"]
    assert (moved["run_id"], len(moved["tasks"])) == (earlier, 3)
    assert page.ask("act", action="mark", state="success", task_ids=["parse"])["data"] == {"affected": 1}
    lab_kernel.run("first.wait()")
    until(lambda: page.ask("full")["data"]["tasks"][-1]["state"] == "success")


def test_a_page_is_answered_while_a_cell_is_executed(lab_kernel):
    page = open_page(lab_kernel)
    control = lab_kernel.client.session.msg("create_subshell_request", {})
    lab_kernel.client.control_channel.send(control)
    subshell = lab_kernel.client.control_channel.get_msg(timeout=10)["content"]["subshell_id"]
    lab_kernel.collect(lambda m: state_shown(m) == "failed", timeout=60)
    lab_kernel.client.execute("import time; time.sleep(8); 'slept'")
    begun = time.monotonic()
    assert page.ask("full", subshell=subshell)["ok"]
    assert time.monotonic() - begun < 6
    assert not [m for _, m in lab_kernel.messages if m["msg_type"] == "execute_result"]


def test_the_grid_of_a_cell_executed_again_is_closed(lab_kernel):
    def execute(source):
        message = lab_kernel.client.session.msg(
            "execute_request",
            {
                "code": source,
                "silent": False,
                "store_history": True,
                "user_expressions": {},
                "allow_stdin": False,
            },
        )
        message["metadata"] = {"cellId": "cell-1"}
        lab_kernel.client.shell_channel.send(message)
        return lab_kernel.reply_to(message["header"]["msg_id"], timeout=60)

    execute(DAG)
    opened = lab_kernel.collect(opens_a_grid, timeout=60)
    execute("1 + 1")
    closed = lab_kernel.collect(lambda m: m["msg_type"] == "comm_close", timeout=10)
    assert closed["content"]["comm_id"] == opened["content"]["comm_id"]


def test_a_widget_can_be_placed_among_others(lab_kernel):
    lab_kernel.run(DAG)
    lab_kernel.run("run.wait()")
    lab_kernel.collect()
    lab_kernel.run("w = run.widget('gantt')")
    assert lab_kernel.value("(w.view, w.key, len(w.full_state()['tasks']))") == ("gantt", "", 3)
    reply = lab_kernel.run("run.widget('pie')", errors=True)
    assert reply["traceback"] == [
        "InvalidInputError: There is no view 'pie'.\n  There are grid, graph, gantt."
    ]
