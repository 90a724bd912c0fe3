"""Tests the tour of Airflow's UI in docs/airflow-ui.md, on a stack with ``up --ui``."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.paths import DOCS
from tests.support.waiting import until

expect = pytest.importorskip("playwright.sync_api").expect

IMAGES = DOCS / "images"
DAGS = Path(__file__).with_name("dags")
PATIENCE = 90_000


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1400, "height": 820})
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


@pytest.fixture
def take(page, request, tmp_path):
    """Take a picture; it is one of the docs' where those are renewed."""
    folder = IMAGES if request.config.getoption("--update-screenshots") else tmp_path

    def take_(name: str, of=None) -> None:
        (of or page).screenshot(path=str(folder / f"{name}.png"))

    return take_


def test_the_tour_follows_a_run_from_trigger_to_end(ui_stack, airflow_api, page, take, tmp_path):
    folder = tmp_path / "shop"
    shutil.copytree(DAGS, folder)
    ui_stack.register_folder(folder)
    airflow_api.dag_appears("orders")
    base = ui_stack.links["airflow"]

    # Unpaused first: the trigger dialog does it in a second request at once, which fails now and then on SQLite.
    page.goto(f"{base}/dags/orders")
    page.locator("label", has=page.get_by_role("checkbox")).first.click()
    until(lambda: not airflow_api.get("dags/orders")["is_paused"], "the DAG is unpaused", 60)
    page.get_by_role("button", name="Trigger Dag").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Trigger").last.click()
    runs = until(lambda: airflow_api.get("dags/orders/dagRuns")["dag_runs"], "the run", 60)
    run_id = runs[0]["dag_run_id"]
    run = f"{base}/dags/orders/runs/{run_id}"

    # The grid follows the run: one task fails, and those after it with it.
    page.goto(run)
    expect(page.get_by_text("Upstream Failed").first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("row").filter(has_text="pricing.rates")).to_contain_text("Failed")
    take("ui-failed")

    # What it needed is there now: it is cleared, and the run goes on.
    (folder / "rates.json").write_text("{}")
    page.goto(f"{run}/tasks/pricing.rates")
    expect(page.get_by_text("there is no rates.json").first).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Press shift+c to clear").click()
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    page.goto(run)
    expect(page.get_by_text("Awaiting Input").first).to_be_visible(timeout=PATIENCE)
    take("ui-awaiting-input")

    # The run's way to Temporal, and the workflow there.
    page.get_by_role("link", name="Temporal", exact=True).click()
    frame = page.frame_locator("iframe[title=Temporal]")
    expect(frame.get_by_role("heading", name="Running")).to_be_visible(timeout=PATIENCE)
    take("ui-temporal-tab")
    with page.context.expect_page() as opened:
        frame.get_by_role("link", name="Open in Temporal").click()
    workflow = opened.value
    workflow.get_by_text(f"airflow-orders-{run_id}").first.wait_for()
    workflow.get_by_text("pricing.rates").first.wait_for()
    take("temporal-workflow", workflow)
    workflow.close()

    # A person approves, and the run ends well.
    page.goto(f"{run}/tasks/approve/required_actions")
    page.get_by_role("button", name="Approve").click()
    assert airflow_api.wait("orders", run_id) == "success"
    page.goto(run)
    expect(page.get_by_role("row").filter(has_text="publish")).to_contain_text("Success", timeout=PATIENCE)
    page.get_by_role("button", name="Show Gantt").click()
    take("ui-success")

    # Each task leads to Temporal, too.
    page.goto(f"{run}/tasks/publish/details")
    link = page.get_by_role("link", name="Temporal", exact=True)
    link.wait_for()
    assert f"airflow-orders-{run_id}" in unquote(link.get_attribute("href"))
