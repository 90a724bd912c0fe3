"""Tests the links from Airflow's UI to Temporal's, with an Airflow below a URL path."""

from __future__ import annotations

import pytest

from tests.production.cluster import quoted
from tests.production.cluster_behind_path import link_of, new_cluster, temporal_ui

RUN_ID = "with:signs+of~all"
MILLISECONDS = 60_000


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    with new_cluster(tmp_path_factory.mktemp("links")) as cluster:
        yield cluster


def test_a_run_has_a_tab_with_a_link_to_temporal(airflow, chromium, tmp_path):
    airflow.trigger("lasting", RUN_ID)
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(MILLISECONDS)
    page = context.new_page()
    try:
        page.goto(f"{airflow.url}/dags/lasting/runs/{quoted(RUN_ID)}")
        page.get_by_role("link", name="Temporal").click()
        frame = page.frame_locator("iframe[title=Temporal]")
        frame.get_by_role("heading", name="Running").wait_for()
        assert frame.get_by_text(f"airflow-lasting-{RUN_ID}", exact=True).is_visible()
        page.emulate_media(color_scheme="dark")
        frame.locator("html.dark").wait_for(state="attached")
        with context.expect_page() as opened:
            frame.get_by_role("link", name="Open in Temporal").click()
        workflow = opened.value
        workflow.get_by_text(f"airflow-lasting-{RUN_ID}").first.wait_for()
        assert workflow.url.startswith(temporal_ui(airflow))
        workflow.close()

        (airflow.traces / RUN_ID).touch()
        frame.get_by_role("heading", name="Ended: success").wait_for()

        page.goto(f"{airflow.url}/dags/lasting/runs/{quoted(RUN_ID)}/tasks/lasts/details")
        link = page.get_by_role("link", name="Temporal", exact=True)
        link.wait_for()
        assert link.get_attribute("href") == link_of(airflow, "lasting", RUN_ID, "lasts")
    except BaseException:
        for number, shown in enumerate(context.pages):
            shown.screenshot(path=str(tmp_path / f"page-{number}.png"))
        raise
    finally:
        context.close()
