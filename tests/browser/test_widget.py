"""Tests the widget in a real browser, with messages in the protocol of the kernel."""

from __future__ import annotations

import json
import re

import pytest

from tests.browser.widget_stage import KEY, at, changes, full, group, many, node, open_page, run, served, task

expect = pytest.importorskip("playwright.sync_api").expect

NODES = [
    node("extract"),
    group("clean"),
    node("clean.validate"),
    group("clean.deep"),
    node("clean.deep.parse"),
    node("price", mapped=True),
    node("load"),
]
EDGES = [
    ["extract", "clean.validate"],
    ["clean.validate", "clean.deep.parse"],
    ["clean.deep.parse", "price"],
    ["price", "load"],
]
OLDER = run("scheduled__2026-02-28", "failed", -86400, -86380)
LINES = [
    {"time": at(3), "level": "info", "text": "\x1b[32mfetching\x1b[0m rates"},
    {"time": at(4), "level": "error", "text": "no rates"},
]
ERROR = {
    "type": "ValueError",
    "value": "<b>no rates</b>",
    "text": "Traceback (most recent call last): ...",
    "frames": [
        {"filename": "/airflow/sdk/run.py", "lineno": 3, "name": "run", "line": "go()", "cell": None, "user": False},
        {"filename": "/c.py", "lineno": 9, "name": "f", "line": "raise x", "cell": "In [7], line 3", "user": True,
         "context": [[8, "def f():"], [9, "    raise x"]]},
    ],
}  # fmt: skip
DETAILS = {
    "task_id": "load",
    "map_index": -1,
    "try_number": 2,
    "state": "failed",
    "operator": "PythonOperator",
    "rendered": {"op_args": "[42]"},
    "xcoms": [{"key": "return_value", "value": "{'total': 81.6}"}],
    "tries": [],
    "error": ERROR,
    "log": [],
    "next_retry_at": None,
    "commands": ['run.logs("load")'],
}


def tasks():
    return [
        task("extract", "success", (0, 1, 3)),
        task("clean.validate", "success", (3, 4, 6)),
        task("clean.deep.parse", "running", (6, 6.5, None)),
        *[task("price", state, map_index=i) for i, state in enumerate(["success", "failed", None])],
        task("load", "failed", (8, 9, 9.5), try_number=2, max_tries=2, tries=[[1, "failed", 6, 7, 7.5]]),
    ]


def story(**more):
    cells = {OLDER["run_id"]: {"extract": {"success": 1}, "price": {"success": 2, "failed": 1}}}
    return full(NODES, EDGES, tasks(), others=[OLDER], cells=cells, **more)


@pytest.fixture(scope="module")
def address():
    with served() as url:
        yield url


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(20_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    yield page
    context.close()
    assert problems == []


def row(page, task_id: str, map_index: int = -1):
    return page.locator(f'ta-live .row[data-task="{task_id}"][data-index="{map_index}"]')


def cell(page, task_id: str, run_id: str):
    return row(page, task_id).locator(f'[data-run="{run_id}"]')


def expect_names(page, *names: str) -> None:
    expect(page.locator("ta-live .row .label")).to_have_text(list(names))


def sent(page, op: str) -> list[dict]:
    return [
        {name: value for name, value in message.items() if name not in ("type", "id", "op")}
        for message in page.evaluate("model.sent")
        if message["op"] == op
    ]


def say(page, message) -> None:
    page.evaluate("text => model.receive(JSON.parse(text))", json.dumps(message))


def until_sent(page, op: str, count: int = 1) -> list[dict]:
    page.wait_for_function(
        "([op, count]) => model.sent.filter(m => m.op === op).length >= count", arg=[op, count]
    )
    return sent(page, op)


def test_the_grid_shows_tasks_groups_runs_and_counts_of_mapped_tasks(page, address):
    state = story()
    open_page(page, address, state)
    expect(page.locator("ta-live .pill")).to_have_text(re.compile("running"))
    expect_names(page, "extract", "clean", "validate", "deep", "parse", "price", "load")
    expect(cell(page, "extract", state["run_id"])).to_have_attribute("aria-label", re.compile("success$"))
    expect(cell(page, "price", OLDER["run_id"])).to_have_attribute(
        "aria-label", re.compile("1 failed, 2 success")
    )
    expect(cell(page, "load", OLDER["run_id"])).to_have_attribute("aria-label", re.compile("not in this run"))
    # Airflow's order of states: what runs stands for the group, what failed for the mapped task.
    expect(cell(page, "clean", state["run_id"]).locator(".sign")).to_have_class(re.compile("s-running"))
    expect(cell(page, "price", state["run_id"]).locator(".sign")).to_have_class(re.compile("s-failed"))
    expect(row(page, "price").locator(".size")).to_have_text("3")
    expect(row(page, "load")).to_contain_text("2/3")
    expect(page.get_by_role("link", name="Open in Temporal")).to_have_attribute("href", re.compile("8233"))
    heads = page.locator("[data-run-head]")
    assert [head.get_attribute("data-run-head") for head in heads.all()] == [OLDER["run_id"], state["run_id"]]


def test_changes_are_applied_in_order_and_a_gap_requests_the_full_state(page, address):
    state = story()
    open_page(page, address, state)
    delta = {"type": "delta", "now": at(11), "removed": [], "cells": {}, "dropped": []}
    done = task("clean.deep.parse", "success", (6, 6.5, 11))
    say(page, {**delta, "seq": 2, "runs": [], "tasks": [done]})
    expect(row(page, "clean.deep.parse")).to_contain_text("success")
    expect(row(page, "clean.deep.parse")).to_contain_text("4.50 s")
    # Once more, and late: without an effect. From the future: everything is asked for, once.
    now = {**state, "seq": 6, "tasks": [task("extract", "skipped"), done]}
    page.evaluate("state => {model.answers.full = {data: state}}", now)
    say(page, {**delta, "seq": 2, "runs": [], "tasks": [task("extract", "failed")]})
    say(page, {**delta, "seq": 5, "runs": [], "tasks": [task("extract", "failed")]})
    say(page, {**delta, "seq": 6, "runs": [], "tasks": [task("extract", "failed")]})
    assert len(until_sent(page, "full")) == 1
    expect(row(page, "extract")).to_contain_text("skipped")
    ended = full(NODES, EDGES, [*tasks()[:2], done], state="success", end=12)
    say(page, {"type": "full", "state": {**ended, "seq": 6}})
    expect(page.locator("ta-live .pill")).to_have_text(re.compile("success"))
    expect(page.locator("ta-live [aria-live=polite]").first).to_have_text(re.compile("success"))
    expect_names(page, "extract", "clean", "validate", "deep", "parse", "price", "load")
    expanded = [task("load", "success", map_index=i) for i in range(2)]
    say(page, {**delta, "seq": 7, "runs": [], "tasks": expanded, "removed": [["load", -1]]})
    expect(row(page, "load").locator(".size")).to_have_text("2")


def test_changes_before_the_page_listened_are_requested(page, address):
    state = story()
    later = {**state, "seq": 4, "tasks": [task("extract", "failed", (0, 1, 3))]}
    open_page(page, address, state, answers={"mounted": {"data": {"seq": 4}}, "full": {"data": later}})
    expect(row(page, "extract")).to_contain_text("failed")
    assert len(sent(page, "full")) == 1


def test_groups_and_mapped_tasks_expand_and_collapse(page, address):
    open_page(page, address, story())
    row(page, "clean").click()
    expect_names(page, "extract", "clean", "price", "load")
    expect(row(page, "clean")).to_have_attribute("aria-expanded", "false")
    row(page, "price").locator(".chevron").click()
    expect_names(page, "extract", "clean", "price", "[0]", "[1]", "[2]", "load")
    expect(row(page, "price", 1)).to_contain_text("failed")
    page.get_by_role("button", name="Collapse all", exact=True).click()
    page.get_by_role("button", name="Expand all").click()
    expect_names(page, "extract", "clean", "validate", "deep", "parse", "price", "load")


def test_the_filters_show_matching_tasks_only(page, address):
    open_page(page, address, story())
    row(page, "extract").focus()
    page.keyboard.press("/")
    page.keyboard.type("PARSE")
    expect_names(page, "clean", "deep", "parse")
    page.keyboard.press("Escape")
    page.get_by_role("button", name=re.compile("failed")).and_(page.locator(".chip")).click()
    expect_names(page, "price", "load")
    page.locator('.chip[data-state="failed"]').click()
    expect_names(page, "extract", "clean", "validate", "deep", "parse", "price", "load")


def test_a_click_on_a_column_header_requests_its_run(page, address):
    open_page(page, address, story())
    page.locator(f'[data-run-head="{OLDER["run_id"]}"]').click()
    assert until_sent(page, "focus") == [{"run_id": OLDER["run_id"]}]
    other = full(NODES, EDGES, [task("extract", "failed", (0, 1, 2))], state="failed", end=20)
    say(page, {"type": "full", "state": {**other, "seq": 1, "run_id": OLDER["run_id"], "runs": [OLDER]}})
    expect(page.locator("ta-live .pill")).to_have_text(re.compile("failed"))
    expect(page.locator("ta-live .run-id")).to_have_text(OLDER["run_id"])


def test_the_panel_shows_why_a_task_failed_and_its_growing_log(page, address):
    grows = "return {data: {lines: message.after < 2 ? LINES : [], next: 2, ended: false}}"
    answers = {"task": {"data": DETAILS}, "log": grows}
    page.add_init_script(f"window.LINES = {LINES!r}".replace("\\x1b", "\\u001b"))
    open_page(page, address, story(), answers=answers)
    page.get_by_role("button", name="Why did load fail?").click()
    panel = page.get_by_role("complementary", name="Task load")
    expect(panel.locator(".what")).to_have_text("ValueError: <b>no rates</b>")
    expect(panel.locator(".frames .user")).to_contain_text("In [7], line 3")
    expect(panel.locator(".frames .here")).to_have_text("    raise x")
    panel.get_by_role("tab", name="Details").click()
    expect(panel.get_by_role("tabpanel")).to_contain_text("{'total': 81.6}")
    expect(panel.get_by_role("tabpanel")).to_contain_text("[42]")
    panel.get_by_role("tab", name="Log").click()
    expect(panel.locator(".log .line > span")).to_have_text(["fetching rates", "no rates"])
    expect(panel.locator(".log .l-error")).to_contain_text("ERROR")
    # It goes on where it was, and stays at the end until it is scrolled back.
    asked = until_sent(page, "log", 2)
    assert [each["after"] for each in asked[:2]] == [0, 2]
    long = [{"time": at(5), "level": "info", "text": f"line {i}"} for i in range(200)]
    page.evaluate(
        "lines => {model.answers.log = `return {data: message.after < 202"
        " ? {lines: window.more, next: 202, ended: true} : {lines: [], next: 202, ended: true}}`; window.more = lines}",
        long,
    )
    expect(panel.locator(".log .line")).to_have_count(202)
    expect(panel.get_by_text("line 199", exact=True)).to_be_in_viewport()
    panel.get_by_label("Try", exact=True).select_option("1")
    assert until_sent(page, "log", 4)[-1] == {
        "task_id": "load",
        "map_index": -1,
        "try_number": 1,
        "after": 0,
    }
    page.get_by_role("button", name="Close the task").click()
    expect(panel).to_have_count(0)


def test_a_mapped_task_opens_at_its_most_important_instance(page, address):
    open_page(page, address, story(), answers={"task": {"data": {**DETAILS, "error": None}}})
    row(page, "price").locator(".label").click()
    assert until_sent(page, "task")[0]["map_index"] == 1
    squares = page.get_by_role("listbox", name="Map index").get_by_role("option")
    expect(squares).to_have_count(3)
    squares.nth(0).click()
    expect(squares.nth(0)).to_have_attribute("aria-selected", "true")
    assert until_sent(page, "task", 2)[-1]["map_index"] == 0


def test_the_keyboard_navigates_expands_opens_and_closes(page, address):
    open_page(page, address, story(), answers={"task": {"data": DETAILS}})
    grid = page.get_by_role("treegrid")
    expect(grid.locator('[role=row][tabindex="0"]')).to_have_count(1)
    page.evaluate(
        "window.leaked = []; document.addEventListener('keydown', e => leaked.push(e.key));"
        "window.kept = []; document.addEventListener('keydown', e =>"
        " kept.push(e.target.hasAttribute('data-lm-suppress-shortcuts')), true)"
    )
    row(page, "extract").focus()
    for key in ("ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    expect(row(page, "clean")).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(row(page, "clean.validate")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(row(page, "clean")).to_be_focused()
    page.keyboard.press("End")
    expect(row(page, "load")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary", name="Task load")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("complementary")).to_have_count(0)
    expect(row(page, "load")).to_be_focused()
    assert page.evaluate("leaked") == []
    page.keyboard.press("Control+s")
    assert page.evaluate("leaked") == ["Control", "s"]
    assert page.evaluate("kept.slice(0, -2).every(Boolean) && !kept.at(-1)")
    tab = page.get_by_role("tab", name="Grid")
    tab.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Graph")).to_have_attribute("aria-selected", "true")
    assert until_sent(page, "view") == [{"view": "graph"}]


def test_actions_ask_once_and_show_their_result(page, address):
    answers = {"task": {"data": DETAILS}, "log": {"data": {"lines": [], "next": 0, "ended": True}}}
    open_page(page, address, story(), answers={**answers, "act": {"data": {"affected": 3}}})
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("button", name="Cancel run")).to_be_focused()
    assert sent(page, "act") == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Cancel run").click()
    assert until_sent(page, "act") == [{"action": "cancel"}]
    page.get_by_role("button", name="Clear failed").click()
    page.get_by_role("button", name="Clear failed").click()
    assert until_sent(page, "act", 2)[-1] == {"action": "clear", "only_failed": True}
    expect(page.get_by_role("status").filter(has_text="3 tasks cleared.")).to_be_visible()

    row(page, "load").click()
    page.get_by_role("button", name="Clear…").click()
    page.get_by_label("and downstream").uncheck()
    page.get_by_role("button", name="Clear", exact=True).click()
    assert until_sent(page, "act", 3)[-1] == {
        "action": "clear",
        "task_ids": ["load"],
        "map_indexes": None,
        "downstream": False,
    }
    page.evaluate("model.answers.act = {ok: false, error: {message: 'The run is over.', hint: 'Clear it.'}}")
    page.get_by_role("button", name="Mark skipped").click()
    page.get_by_role("button", name="Mark skipped").click()
    assert until_sent(page, "act", 4)[-1]["state"] == "skipped"
    expect(page.get_by_role("status").filter(has_text="The run is over. Clear it.")).to_be_visible()


def test_refused_actions_show_a_reason_and_production_is_shown_in_red(page, address):
    lost = {"ok": False, "text": "The stack doesn't answer."}
    reason = "Without Airflow's database nothing can be cleared."
    refused = {"clear": reason, "mark": reason, "log": "There are no logs here."}
    open_page(page, address, story(refused=refused, production="namespace payments-prod", connection=lost))
    expect(page.locator("ta-live .production")).to_have_text("Production: namespace payments-prod")
    expect(page.locator("ta-live .production")).to_have_css("background-color", "rgb(185, 28, 28)")
    expect(page.get_by_role("status").filter(has_text="The stack doesn't answer.")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_enabled()
    row(page, "load").click()
    expect(page.get_by_role("link", name="Open in Airflow").last).to_have_attribute(
        "href", re.compile("/tasks/load$")
    )
    buttons = page.get_by_role("button", name=re.compile("^(Mark [sf]|Clear)"))
    expect(buttons).to_have_count(5)
    for button in buttons.all():
        expect(button).to_be_disabled()
    clear = page.get_by_role("button", name="Clear failed")
    expect(clear).to_have_accessible_description(reason)
    clear.focus()
    page.keyboard.press("Enter")
    expect(clear).to_be_focused()
    page.get_by_role("tab", name="Log").click()
    expect(page.get_by_role("status").filter(has_text="There are no logs here.")).to_be_visible()
    assert sent(page, "log") == []
    say(page, {"type": "connection", "ok": True, "text": ""})
    expect(page.get_by_role("status").filter(has_text="answer")).to_have_count(0)


def test_next_steps_are_copied_by_a_click(page, address):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_page(page, address, story(), answers={"task": {"data": DETAILS}})
    row(page, "load").click()
    page.get_by_role("button", name='run.logs("load") copy').click()
    expect(page.get_by_text("copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == 'run.logs("load")'


def test_a_collapsed_group_has_one_edge_for_many(page, address):
    open_page(page, address, story(), view="graph")
    edges = page.locator("ta-live .edges path")
    expect(edges).to_have_count(4)
    expect(page.locator('[data-node="price"]')).to_have_accessible_name(
        re.compile("price.*: 1 failed, 1 no status, 1 success")
    )
    page.locator('[data-box="clean"]').click()
    expect(page.locator('[data-node="clean"]')).to_have_attribute("data-state", "running")
    expect(edges).to_have_count(3)
    ends = [(e.get_attribute("data-from"), e.get_attribute("data-to")) for e in edges.all()]
    assert ends == [("extract", "clean"), ("clean", "price"), ("price", "load")]
    say(
        page,
        {"type": "delta", "seq": 2, "runs": [], "tasks": [task("clean.deep.parse", "failed", (6, 6.5, 9))]},
    )
    expect(page.locator('[data-node="clean"]')).to_have_attribute("data-state", "failed")
    page.locator('[data-node="extract"]').focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator('[data-node="clean"]')).to_be_focused()
    page.keyboard.press("Enter")
    expect(edges).to_have_count(4)


def test_the_graph_is_laid_out_if_a_page_allows_no_worker(page, address):
    page.add_init_script("window.Worker = class { constructor() { throw new Error('not here') } }")
    open_page(page, address, story(), view="graph")
    expect(page.locator("ta-live .edges path")).to_have_count(4)


def test_a_small_dag_is_expanded_as_soon_as_it_is_known(page, address):
    state = story()
    unknown = {**state, "structure": {"version": None, "nodes": [], "edges": []}, "tasks": [], "runs": []}
    open_page(page, address, unknown)
    expect(page.locator("ta-live .empty")).to_have_text("No tasks yet.")
    say(page, {"type": "full", "state": {**state, "seq": 2}})
    expect_names(page, "extract", "clean", "validate", "deep", "parse", "price", "load")


def test_the_clock_of_a_run_that_is_not_followed_stops(page, address):
    open_page(page, address, story(follows=False))
    expect(page.locator("ta-live .took")).to_have_text("10.0 s")


def test_a_graph_with_too_many_nodes_is_not_drawn(page, address):
    state = many(2000)
    open_page(page, address, state, view="graph")
    expect(page.locator("ta-live .node")).to_have_count(40)
    page.get_by_role("tab", name="Grid").click()
    page.get_by_role("button", name="Expand all").click()
    page.get_by_role("tab", name="Graph").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("2,000 nodes are too many")
    page.get_by_role("button", name="Collapse all groups").click()
    expect(page.locator("ta-live .node")).to_have_count(40)


def test_the_gantt_draws_bars_at_their_times(page, address):
    rows = [
        task("extract", "success", (0, 2, 6)),
        task("load", "success", (12, 14, 18), try_number=2, max_tries=1, tries=[[1, "failed", 6, 8, 10]]),
    ]
    state = full(
        [node("extract"), node("load")], [["extract", "load"]], rows, state="success", now=20, end=20
    )
    open_page(page, address, state, view="gantt")

    def places(task_id: str):
        track = row(page, task_id).locator(".track").bounding_box()
        found = []
        for bar in row(page, task_id).locator(".bar").all():
            box = bar.bounding_box()
            kind = next(
                kind for kind in ("queued", "wait", "run") if kind in bar.get_attribute("class").split()
            )
            found.append(
                (
                    kind,
                    round((box["x"] - track["x"]) / track["width"] * 20),
                    round(box["width"] / track["width"] * 20),
                )
            )
        return found  # fmt: skip

    assert places("extract") == [("queued", 0, 2), ("run", 2, 4)]
    assert places("load") == [
        ("queued", 6, 2),
        ("run", 8, 2),
        ("wait", 10, 2),
        ("queued", 12, 2),
        ("run", 14, 4),
    ]
    expect(row(page, "load").locator(".bar.past.run")).to_have_class(re.compile("s-failed"))
    assert page.locator("ta-live .thead .mark").first.text_content() == "12:00:00"
    row(page, "load").locator(".track").hover()
    expect(page.get_by_role("tooltip")).to_contain_text("started  2026-03-01 12:00:14.000")
    expect(page.locator("ta-live .lines.present")).to_have_count(0)


def test_colours_follow_the_theme(page, address):
    open_page(page, address, story())
    root = page.locator("ta-live .root")
    expect(root).to_have_css("background-color", "rgb(255, 255, 255)")
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    expect(root).to_have_css("background-color", "rgb(17, 17, 17)")
    expect(root).to_have_css("color", "rgb(255, 255, 255)")
    expect(row(page, "extract").locator(".cell.on .sign")).to_have_css("background-color", "rgb(22, 163, 74)")
    expect(row(page, "extract").locator(".cell.on .sign")).to_have_text("✓")
    # A light theme of VS Code's has both classes.
    page.evaluate("delete document.body.dataset.jpThemeLight")
    page.emulate_media(color_scheme="dark")
    page.evaluate("document.body.className = 'vscode-high-contrast vscode-high-contrast-light'")
    expect(root).to_have_css("background-color", "rgb(255, 255, 255)")
    # Without a theme of the page's, the browser's own.
    page.evaluate("document.body.className = ''")
    expect(root).to_have_css("background-color", "rgb(13, 17, 23)")


def test_the_widget_replaces_the_static_html_while_the_kernel_lives(page, address):
    open_page(page, address, story())
    static = page.locator(".jp-OutputArea-output")
    expect(static).to_be_hidden()
    assert until_sent(page, "mounted") == [{}]
    expect(page.locator("ta-live")).to_have_attribute("data-lm-suppress-shortcuts", "true")
    # The kernel replaces what is below, as it does while a run goes on.
    page.evaluate(
        "key => document.querySelector('.jp-OutputArea-output').innerHTML ="
        " `<div data-ta-live='${key}'><p>newer HTML</p></div>`",
        KEY,
    )
    expect(static).to_be_hidden()
    expect(page.locator("ta-live")).to_have_count(1)
    # A notebook takes what is far away out of the document, and puts it back.
    page.evaluate("window.away = document.querySelector('#cell'); away.remove()")
    page.evaluate("document.body.append(away)")
    expect(page.locator("ta-live .pill")).to_be_visible()
    page.evaluate("model.comm_live = false; model.emit('comm_live_update')")
    expect(page.locator("ta-live")).to_have_count(0)
    expect(static).to_be_visible()
    # It was the connection only: the kernel is heard again.
    say(page, {"type": "full", "state": story()})
    expect(static).to_be_hidden()
    page.evaluate("destroy()")
    expect(static).to_be_visible()
    expect(page.locator("ta-live")).to_have_count(0)


def test_an_output_without_the_placeholder_has_no_widget(page, address):
    open_page(page, address, story())
    expect(page.locator("ta-live")).to_have_count(1)
    page.evaluate("document.querySelector('.jp-OutputArea-output').innerHTML = '<p>something else</p>'")
    expect(page.locator("ta-live")).to_have_count(0)
    expect(page.get_by_text("something else")).to_be_visible()


def test_the_widget_can_have_its_own_output(page, address):
    page.goto(address)
    page.wait_for_function("window.ready")
    page.evaluate(
        """state => {
          const el = document.body.appendChild(document.createElement("div"));
          const model = window.classic = new Model({key: "", view: "gantt", state});
          window.initialized = widget.initialize({model});
          window.end = widget.render({model, el});
        }""",
        story(),
    )
    expect(page.get_by_role("tab", name="Gantt")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_text("static HTML")).to_be_visible()
    assert page.evaluate("initialized === undefined")
    page.evaluate("classic.comm_live = false; classic.emit('comm_live_update')")
    expect(page.get_by_role("status").filter(has_text="The kernel has stopped.")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)
    # The clock stands, and nothing is asked for any more.
    was = page.locator("ta-live .took").text_content()
    page.evaluate("classic.sent.length = 0; Date.now = (now => () => now() + 60_000)(Date.now)")
    page.get_by_role("row").filter(has_text="load").locator(".name").click()
    expect(page.get_by_role("complementary")).to_contain_text("The kernel has stopped.")
    expect(page.locator("ta-live .took")).to_have_text(was)
    assert page.evaluate("classic.sent.length") == 0
    page.evaluate("end()")
    expect(page.locator("ta-live")).to_have_count(0)


@pytest.mark.parametrize("count", [1000, 10_000])
def test_every_task_of_a_large_run_is_reachable_in_a_small_page(page, address, count):
    state = many(count)
    open_page(page, address, state)
    expect(page.locator("ta-live .row").first).to_contain_text("part_000")
    page.get_by_role("button", name="Expand all").click()
    expect(page.get_by_role("treegrid")).to_have_attribute("aria-rowcount", str(count + count // 50 + 1))
    page.locator('ta-live .row[tabindex="0"]').focus()
    page.keyboard.press("End")
    last = state["tasks"][-1]["task_id"]
    expect(row(page, last)).to_be_focused()
    expect(row(page, last)).to_be_in_viewport()
    delta = changes(state, count // 10)(1)
    say(page, {**delta, "tasks": [*delta["tasks"], task(last, "failed", (1, 2, 3))]})
    expect(row(page, last)).to_contain_text("failed")
    expect(page.locator("ta-live .chip[data-state=failed]")).to_contain_text("1")
    assert page.evaluate("document.querySelector('ta-live').shadowRoot.querySelectorAll('*').length") < 1500
    page.get_by_role("treegrid").evaluate("box => box.scrollTop = 26 * 500")
    expect(row(page, "part_009.task_00489")).to_be_in_viewport()
    expect(row(page, last)).to_have_count(1)  # it keeps the focus
    page.get_by_role("button", name="Collapse all", exact=True).click()
    expect(page.get_by_role("treegrid")).to_have_attribute("aria-rowcount", str(count // 50 + 1))


def test_nothing_is_drawn_outside_of_the_visible_page(page, address):
    open_page(page, address, story())
    expect(row(page, "load")).to_be_visible()
    page.evaluate(
        "const gap = document.createElement('div'); gap.style.height = '4000px';"
        "document.querySelector('#cell').before(gap)"
    )
    expect(page.locator("ta-live")).not_to_be_in_viewport()
    page.wait_for_function(
        "() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 100, true)))"
    )
    page.evaluate(
        "window.drawn = 0; new MutationObserver(() => drawn++).observe("
        "document.querySelector('ta-live').shadowRoot, {subtree: true, childList: true, characterData: true})"
    )
    say(page, {"type": "delta", "seq": 2, "runs": [], "tasks": [task("extract", "failed", (0, 1, 2))]})
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("drawn") == 0
    page.locator("ta-live").scroll_into_view_if_needed()
    expect(row(page, "extract")).to_contain_text("failed")
