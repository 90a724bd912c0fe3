"""Tests the live grid in a real JupyterLab, and the notebook that it leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from temporal_airflow_nb.display import html
from temporal_airflow_nb.display.model import build_grid
from tests.support.paths import DOCS
from tests.support.snapshots import at, mapped, snapshot, task
from tests.support.waiting import until

expect = pytest.importorskip("playwright.sync_api").expect

IMAGES = DOCS / "images"
LOAD = "%load_ext temporal_airflow_nb"

ORDERS = """%%temporal_dag
import time
from datetime import timedelta
from airflow.sdk import dag, get_current_context, task, task_group

@dag(schedule=None)
def orders():
    @task
    def extract():
        time.sleep(1)
        print("24 orders")
        return list(range(24))

    @task(retries=2, retry_delay=timedelta(seconds=1))
    def price(order):
        time.sleep(0.2 + order % 5 / 10)
        if order == 7 and get_current_context()["ti"].try_number == 1:
            raise ValueError("no exchange rate yet")
        return order * 1.2

    @task_group
    def quality(prices):
        @task
        def totals(prices):
            time.sleep(3)
            return sum(prices)

        @task.branch
        def audit(total):
            return "load" if total < 1000 else "alert"

        return audit(totals(prices))

    @task
    def load():
        time.sleep(1)

    @task
    def alert():
        pass

    quality(price.expand(order=extract())) >> [load(), alert()]

orders()"""

NAPS = """%%temporal_dag
import time
from pathlib import Path
from airflow.sdk import dag, task

@dag(schedule=None)
def naps():
    @task
    def short():
        print("slept well")

    @task
    def long():
        while not Path("{alarm}").exists():
            time.sleep(0.1)

    short() >> long()

naps()"""

BREAKS = """%%temporal_dag --wait
from airflow.sdk import dag, task

@dag(schedule=None)
def breaks():
    @task
    def parse():
        raise ValueError("<b>not a date</b>")
    parse()

breaks()"""


LARGE = """%%temporal_dag
from pathlib import Path
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import dag, task, task_group

@dag(schedule=None)
def large():
    @task
    def begin():
        import time
        while not Path("{alarm}").exists():
            time.sleep(0.1)

    @task
    def end():
        print("all of them")

    @task_group
    def part():
        for n in range(50):
            EmptyOperator(task_id=f"step_{{n:02}}")

    first, last = begin(), end()
    for _ in range(20):
        first >> part() >> last

large()"""


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 1100}, device_scale_factor=2)
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()


@pytest.fixture
def open_notebook(lab, page):
    """Open a notebook with these cells; returns its cells in the page."""

    def open_(name: str, *sources: str, outputs=()):
        notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
        notebook.cells[-1].outputs = list(outputs)
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, lab.folder / name)
        cells = reopened(page, lab, name, len(sources))
        expect_idle(page)
        return cells

    return open_


@pytest.fixture
def keep_picture(page, request):
    """Renew a picture of the grid in the documentation, if asked to."""

    def keep(name: str, grid) -> None:
        if request.config.getoption("--update-screenshots", default=False):
            page.mouse.move(0, 0)
            grid.scroll_into_view_if_needed()
            grid.screenshot(path=IMAGES / name)

    return keep


@pytest.fixture
def earlier_runs(request):
    """Code for runs that stand beside the one in a picture, if pictures are renewed."""
    if not request.config.getoption("--update-screenshots", default=False):
        return ""
    source = ORDERS.partition("\n")[2]
    return f"""
import temporal_airflow_nb as ta
for _ in range(5):
    ta.run_cell({source!r}, view="none", wait=True)"""


def reopened(page, lab, name: str, count: int):
    """Load the page of a notebook; returns its cells."""
    page.goto(lab.url(name))
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    expect(cells).to_have_count(count, timeout=60_000)
    return cells.all()


def expect_idle(page) -> None:
    expect(page.locator("#jp-bottom-panel")).to_contain_text("| Idle", timeout=60_000)


def run(page, cell) -> None:
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    expect(cell.locator(".jp-InputPrompt").first).to_have_text(re.compile(r"\[(\d+|\*)\]"))


def state_of(cell):
    return cell.locator("ta-live .pill")


def row(cell, task_id: str):
    return cell.locator(f'ta-live .row[data-task="{task_id}"]').first


def expect_log(cell, task_id: str, text: str) -> None:
    """Open a task, and read its log."""
    row(cell, task_id).click()
    panel = cell.get_by_role("complementary", name=f"Task {task_id}")
    panel.get_by_role("tab", name="Log").click()
    expect(panel.get_by_role("log")).to_contain_text(text)


def saved(page, path: Path, cell: int):
    """Save the notebook; returns the outputs of a cell in the file."""
    before = path.stat().st_mtime_ns
    page.keyboard.press("Control+s")

    def written():
        text = path.read_text() if path.stat().st_mtime_ns != before else ""
        return text.rstrip().endswith("}") and nbformat.reads(text, as_version=4)

    return until(written, "the notebook is saved").cells[cell].outputs


def test_a_run_is_shown_live_while_the_kernel_is_busy(page, open_notebook, lab, keep_picture, earlier_runs):
    load, dag, other = open_notebook("live.ipynb", LOAD + earlier_runs, ORDERS, "print(6 * 7, run.state)")
    run(page, load)
    run(page, dag)
    expect(state_of(dag)).to_contain_text("running", timeout=120_000)
    expect(dag.locator(".ta-run")).to_be_hidden()
    run(page, other)
    expect(other.locator(".jp-OutputArea-output")).to_contain_text(re.compile("42 (queued|running)"))

    expect(row(dag, "extract")).to_contain_text("success", timeout=60_000)
    expect_log(dag, "extract", "24 orders")
    page.keyboard.press("Escape")

    row(dag, "quality").click()
    expect(row(dag, "quality")).to_have_attribute("aria-expanded", "false")
    expect(dag.locator('ta-live .row[data-task="quality.totals"]')).to_have_count(0)
    row(dag, "quality").click()

    expect(row(dag, "quality.totals")).to_contain_text("running", timeout=60_000)
    keep_picture("grid-running.png", dag.locator("ta-live"))
    (output,) = saved(page, lab.folder / "live.ipynb", cell=1)
    assert set(output.data) == {"text/html", "text/plain"}
    assert output.metadata["temporal_airflow"]["state"] == "running"

    expect(state_of(dag)).to_contain_text("success", timeout=90_000)
    expect(row(dag, "price")).to_contain_text("24")
    expect(row(dag, "alert")).to_contain_text("skipped")
    expect(other.locator("ta-live")).to_have_count(0)
    keep_picture("grid.png", dag.locator("ta-live"))
    dag.get_by_role("tab", name="Graph").click()
    expect(dag.locator("ta-live .graph")).to_be_visible()
    keep_picture("grid-graph.png", dag.locator("ta-live"))
    dag.get_by_role("tab", name="Gantt").click()
    keep_picture("grid-gantt.png", dag.locator("ta-live"))


def test_the_grid_survives_a_reload_and_a_restart_of_the_kernel(page, open_notebook, lab, tmp_path):
    alarm = tmp_path / "alarm"
    naps = NAPS.format(alarm=alarm)
    load, dag, again = open_notebook("survives.ipynb", LOAD, naps, f"{LOAD}\n%temporal_show")
    run(page, load)
    run(page, dag)
    expect(row(dag, "long")).to_contain_text("running", timeout=60_000)
    saved(page, lab.folder / "survives.ipynb", cell=1)

    load, dag, again = reopened(page, lab, "survives.ipynb", 3)
    expect(state_of(dag)).to_contain_text("running", timeout=60_000)
    expect(row(dag, "short")).to_contain_text("success")
    expect_log(dag, "short", "slept well")

    page.locator('[data-command="notebook:restart-kernel"]').first.click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    expect(dag.locator("ta-live")).to_have_count(0)
    expect(dag.locator(".ta-run .ta-pill")).to_be_visible()
    expect(dag.locator(".ta-run")).to_contain_text("naps")
    expect_idle(page)

    run(page, again)
    expect(state_of(again)).to_contain_text("running", timeout=60_000)
    alarm.touch()
    expect(state_of(again)).to_contain_text("success", timeout=60_000)
    (output,) = saved(page, lab.folder / "survives.ipynb", cell=2)
    assert output.metadata["temporal_airflow"]["state"] == "success"
    notebook = json.loads((lab.folder / "survives.ipynb").read_text())
    assert "widgets" not in notebook["metadata"]

    load, dag, again = reopened(page, lab, "survives.ipynb", 3)
    expect(state_of(again)).to_contain_text("success", timeout=60_000)
    again.get_by_role("button", name=re.compile("Clear")).first.click()


def test_a_failure_shows_its_cause_and_what_to_do(page, open_notebook, lab, keep_picture):
    load, dag, logs, wait = open_notebook("failure.ipynb", LOAD, BREAKS, 'run.logs("parse")', "run.wait()")
    run(page, load)
    run(page, dag)
    expect(state_of(dag)).to_contain_text("failed", timeout=90_000)
    row(dag, "parse").click()
    panel = dag.get_by_role("complementary", name="Task parse")
    expect(panel.locator(".failure .what")).to_have_text("ValueError: <b>not a date</b>")
    expect(panel.locator(".failure .user .where")).to_contain_text(
        re.compile(r"In \[\d+\], line 8\s+in parse")
    )
    expect(panel.locator(".failure .user .here")).to_have_text(
        '        raise ValueError("<b>not a date</b>")'
    )
    page.keyboard.press("Escape")
    run(page, logs)
    expect(logs.locator(".jp-OutputArea-output")).to_contain_text("<b>not a date</b>")
    run(page, wait)
    card = wait.locator(".ta-failure")
    expect(card).to_contain_text("ValueError: <b>not a date</b>")
    expect(card).to_contain_text('raise ValueError("<b>not a date</b>")')
    expect(card.locator("code").first).to_have_text('run.logs("parse")')
    keep_picture("failure.png", card)
    (output,) = saved(page, lab.folder / "failure.ipynb", cell=1)
    assert "ValueError: &lt;b&gt;not a date" in output.data["text/html"]


def test_an_untrusted_notebook_shows_a_table(open_notebook):
    ended = snapshot(
        task("extract", "success", 0.0, 1.0, group="load"),
        *mapped("price", *["success"] * 20, "failed"),
        state="failed",
        end=3,
    )
    shown = html.render(build_grid(ended, now=at(3)))
    (cell,) = open_notebook(
        "untrusted.ipynb", "run", outputs=[new_output("display_data", {"text/html": shown})]
    )
    # JupyterLab takes pictures and style sheets away, as GitHub does.
    expect(cell.locator("svg.ta-bars")).to_have_count(0)
    expect(cell.locator("table")).to_contain_text("20 success")
    expect(cell.locator(".jp-OutputArea")).to_contain_text("ended 2026-01-01 12:00:03 UTC")
    expect(cell.locator(".jp-OutputArea")).to_contain_text('run.logs("price", map_index=20)')


def test_a_thousand_tasks_in_the_dark_theme(page, open_notebook, tmp_path, keep_picture):
    alarm = tmp_path / "alarm"
    load, dag = open_notebook("large.ipynb", LOAD, LARGE.format(alarm=alarm))
    run(page, load)
    run(page, dag)
    expect(row(dag, "begin")).to_contain_text("running", timeout=60_000)
    root = dag.locator("ta-live .root")
    expect(root).to_have_css("background-color", "rgb(255, 255, 255)")
    for item in ("Settings", "Theme", "JupyterLab Dark"):
        page.locator(".lm-MenuBar-itemLabel, .lm-Menu-itemLabel").get_by_text(item, exact=True).click()
    expect(root).to_have_css("background-color", "rgb(33, 33, 33)", timeout=30_000)

    expect(dag.locator("ta-live .row.group")).to_have_count(20)
    expect(row(dag, "part")).to_contain_text("50")
    alarm.touch()
    expect(state_of(dag)).to_contain_text("success", timeout=120_000)
    expect(dag.locator("ta-live")).to_contain_text("1,002 success")
    dag.get_by_role("button", name="Expand all").click()
    expect(dag.locator("ta-live .row")).not_to_have_count(0)
    assert dag.locator("ta-live .row").count() < 60, "only what is in view is in the page"
    row(dag, "begin").click()
    page.keyboard.press("Escape")
    page.keyboard.press("End")
    expect_log(dag, "end", "all of them")
    keep_picture("grid-dark.png", dag.locator("ta-live"))
