from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

expect = pytest.importorskip("playwright.sync_api").expect

IMAGES = Path(__file__).parents[2] / "docs" / "images"

# In one step: the element is replaced with each update.
PLACE_OF_THE_GRID = """() => {
  const grid = document.querySelector(".ta-run");
  grid.scrollIntoView({block: "center"});
  const {x, y, width, height} = grid.getBoundingClientRect();
  return {x, y, width, height};
}"""

DAG = """%%temporal_dag
import time
from datetime import timedelta
from airflow.sdk import dag, get_current_context, task, task_group

@dag(schedule=None)
def orders():
    @task
    def extract():
        time.sleep(1)
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
            time.sleep(1)
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

    def open_(name: str, *sources: str):
        notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, lab.folder / name)
        page.goto(lab.url(name))
        cells = page.locator(".jp-Notebook .jp-CodeCell")
        expect(cells).to_have_count(len(sources), timeout=60_000)
        expect(page.locator("#jp-bottom-panel")).to_contain_text("| Idle", timeout=60_000)
        return cells.all()

    return open_


@pytest.fixture
def keep_picture(page, request):
    """Renew a picture of the grid in the documentation, if asked to."""

    def keep(name: str, after=None) -> None:
        if request.config.getoption("--update-screenshots", default=False):
            if after is not None:
                after.wait_for()
            IMAGES.mkdir(parents=True, exist_ok=True)
            page.mouse.move(0, 0)
            page.screenshot(path=IMAGES / name, clip=page.evaluate(PLACE_OF_THE_GRID))

    return keep


def run(page, cell) -> None:
    cell.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    expect(cell.locator(".jp-InputPrompt").first).to_have_text(re.compile(r"\[(\d+|\*)\]"))


def state_of(cell):
    return cell.locator(".ta-run .ta-pill")


def test_the_grid_follows_the_run_while_the_kernel_does_other_things(page, open_notebook, keep_picture):
    load, dag, other = open_notebook(
        "live.ipynb", "%load_ext temporal_airflow_nb", DAG, "print(6 * 7, run.state)"
    )
    run(page, load)
    run(page, dag)
    expect(state_of(dag)).to_have_text(re.compile("running"), timeout=60_000)
    run(page, other)
    expect(other.locator(".jp-OutputArea-output")).to_contain_text(re.compile("42 (queued|running)"))

    expect(dag.locator("tr", has_text="extract").locator("td").first).to_contain_text(
        "success", timeout=60_000
    )
    expect(state_of(dag)).to_have_text(re.compile("running"))
    keep_picture("grid-running.png", after=dag.locator("tr", has_text="price").locator("i.ta-success").nth(8))
    expect(state_of(dag)).to_have_text(re.compile("success"), timeout=90_000)
    expect(dag.locator(".ta-run")).to_have_count(1)
    expect(other.locator(".ta-run")).to_have_count(0)
    expect(dag.locator("tr", has_text="price").locator(".ta-squares .ta-success")).to_have_count(24)
    expect(dag.locator("tr", has_text="alert").locator("td").first).to_contain_text("skipped")

    keep_picture("grid.png")


def test_a_failure_says_where_to_look(page, open_notebook):
    source = """%%temporal_dag --wait
from airflow.sdk import dag, task

@dag(schedule=None)
def breaks():
    @task
    def parse():
        raise ValueError("<b>not a date</b>")
    parse()

breaks()"""
    load, dag, logs = open_notebook(
        "failure.ipynb", "%load_ext temporal_airflow_nb", source, 'run.logs("parse")'
    )
    run(page, load)
    run(page, dag)
    expect(dag.locator(".ta-failures")).to_contain_text('run.logs("parse")', timeout=90_000)
    run(page, logs)
    expect(logs.locator(".jp-OutputArea-output")).to_contain_text("<b>not a date</b>")
