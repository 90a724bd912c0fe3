"""Measures the delay between an event of a run and its display in JupyterLab: ``python -m benchmarks.page_latency``."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page, expect, sync_playwright

from temporal_airflow_nb import LocalStack, Run
from tests.browser.jupyter_lab import CHROMIUM_FLAGS, Lab, jupyter_lab

CELL = """%%temporal_dag --name steps
import time
from airflow.sdk import dag, task
from airflow.sdk.bases.operator import chain


@dag(schedule=None)
def steps():
    @task
    def step():
        time.sleep(0.7)

    @task
    def other():
        pass

    chain(*[step.override(task_id=f"step_{{n}}")() for n in range({tasks})])
    for n in range({others}):
        other.override(task_id=f"other_{{n}}")()


steps()
"""
# The times at which the page first showed a task as running and as done, in a frame that was drawn.
WATCH = """() => {
  window.seen = {};
  const root = document.querySelector("ta-live").shadowRoot;
  const look = () => requestAnimationFrame(() => {
    for (const line of root.querySelectorAll(".row[data-task]"))
      for (const state of ["running", "success"])
        if (line.textContent.includes(state)) window.seen[`${line.dataset.task} ${state}`] ??= Date.now();
  });
  look();
  new MutationObserver(look).observe(root, {subtree: true, childList: true, characterData: true, attributes: true});
}"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tasks", type=int, default=20, help="number of tasks in a chain; two events of each are timed"
    )
    parser.add_argument("--others", type=int, default=0, help="number of other tasks that the grid shows")
    options = parser.parse_args()
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        sys.exit("There is no chromium on the PATH.")
    with (
        tempfile.TemporaryDirectory() as root,
        LocalStack(Path(root) / "home") as stack,
        jupyter_lab(Path(root), stack.home) as lab,
        sync_playwright() as driver,
    ):
        browser = driver.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1400})
        late = measure(page, lab, stack, CELL.format(tasks=options.tasks, others=options.others))
        browser.close()
    print(
        f"event → drawn in the page: median {statistics.median(late) * 1000:.0f} ms,"
        f" at most {max(late) * 1000:.0f} ms, {len(late)} events"
    )
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f}, {datetime.now():%Y-%m-%d}")


def measure(page: Page, lab: Lab, stack: LocalStack, source: str) -> list[float]:
    """Run a DAG in a notebook; return the seconds between each event of a task and its display."""
    cells = [new_code_cell("%load_ext temporal_airflow_nb"), new_code_cell(source)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), lab.folder / "steps.ipynb")
    page.goto(lab.url("steps.ipynb"))
    shown = page.locator(".jp-Notebook .jp-CodeCell")
    shown.nth(1).wait_for(timeout=60_000)
    expect(page.locator("#jp-bottom-panel")).to_contain_text("| Idle", timeout=60_000)
    for cell in shown.all():
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
    page.locator("ta-live .row").first.wait_for(timeout=60_000)
    page.evaluate(WATCH)
    began = page.evaluate("Date.now()") / 1000
    latest = stack.client.list_runs(limit=1)[0]
    run = Run(stack.client, latest["dag_id"], latest["run_id"])
    assert run.wait(timeout=300) == "success"
    page.locator("ta-live .pill", has_text="success").wait_for()
    page.wait_for_timeout(1000)
    seen = page.evaluate("window.seen")
    late = []
    for task in run.snapshot()["tasks"]:
        for state, event in (("running", task["start_date"]), ("success", task["end_date"])):
            at, drawn = datetime.fromisoformat(event).timestamp(), seen.get(f"{task['task_id']} {state}")
            # Tasks that ran before the page was watched, and tasks that ended within a frame, aren't timed.
            if at > began and drawn is not None:
                late.append(drawn / 1000 - at)
    return late


if __name__ == "__main__":
    main()
