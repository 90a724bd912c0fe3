"""Tests the HTML of a run in viewers of saved notebooks, which may remove styles, pictures and scripts."""

from __future__ import annotations

import re

import bleach
import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

from temporal_airflow_nb.display import html, text
from temporal_airflow_nb.display.model import build_grid
from tests.support.snapshots import at, mapped, snapshot, task
from tests.unit.display.test_html import DETAILS, Page

# What GitHub leaves of HTML, in essence: no styles, no classes, no pictures but by address.
TAGS = [
    "a",
    "b",
    "blockquote",
    "br",
    "caption",
    "code",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "hr",
    "i",
    "img",
    "kbd",
    "li",
    "ol",
    "p",
    "pre",
    "q",
    "s",
    "samp",
    "small",
    "span",
    "strong",
    "sub",
    "summary",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "time",
    "tr",
    "tt",
    "ul",
    "var",
]
COMMON = [
    "align",
    "alt",
    "aria-label",
    "border",
    "cellpadding",
    "cellspacing",
    "colspan",
    "datetime",
    "height",
    "open",
    "role",
    "rowspan",
    "scope",
    "title",
    "valign",
    "width",
]
ATTRIBUTES = {
    "*": COMMON,
    "a": ["href"],
    "img": ["src"],
}


@pytest.fixture(scope="module")
def shown():
    run = snapshot(
        task("extract", "success", 0.0, 1.0),
        *mapped("price", *["success"] * 20, "failed", "success"),
        task("quality.totals", "failed", 1.0, 2.0, group="quality", try_number=3, max_tries=2),
        task("load", "upstream_failed"),
        state="failed",
        end=3,
    )
    failed = {**DETAILS, "task_id": "quality.totals"}
    return build_grid(run, details={("quality.totals", -1): failed}, now=at(3))


def test_html_without_styles_and_pictures_is_a_table_of_text(shown):
    left = bleach.clean(html.render(shown, key="k"), tags=TAGS, attributes=ATTRIBUTES, strip=True)
    assert not re.search(r"style=|class=|<svg|<rect|data-", left)
    page = Page(left)
    for said in (
        "✗ failed etl manual__2026-01-01",
        "started 2026-01-01 12:00:00 UTC · ended 2026-01-01 12:00:03 UTC · took 3.00 s",
        "✓ 21 success",
        "Task State Try Duration Timeline, 0 to 3.00 s",
        "extract @task ✓ success 1 1.00 s",
        "price [22] @task ✗ 1 failed ✓ 21 success",
        "▾ quality",
        "totals @task ✗ failed 3 of 3 1.00 s",
        "ValueError: <b>not a date</b>",
        "In [7], line 8, in load",
        'run.clear("quality.totals", downstream=True)',
    ):
        assert said in page.text
    assert "{" not in page.text
    assert page.tags.count("table") == 1
    assert ("href", "http://127.0.0.1:8233/namespaces/default/workflows/airflow-etl") in page.attributes


def test_all_styles_are_inline(shown):
    page = Page(html.render(shown))
    assert not {"style", "script", "link", "img"} & set(page.tags)
    assert not [value for name, value in page.attributes if name == "style" and "var(" in value]
    assert not [value for name, value in page.attributes if name == "style" and "position" in value]


def test_nbconvert_keeps_the_grid(shown):
    data = {"text/html": html.render(shown, key="k"), "text/plain": text.render_text(shown)}
    cell = new_code_cell("run", outputs=[new_output("display_data", data=data)])
    notebook = new_notebook(cells=[cell])
    nbformat.validate(notebook)
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    assert Page(data["text/html"]).text in Page(page).text
    assert page.count("<rect") == data["text/html"].count("<rect") > 5
    assert page.count("style=") >= data["text/html"].count("style=")

    untrusted, _ = HTMLExporter(template_name="basic", sanitize_html=True).from_notebook_node(notebook)
    assert "manual__2026-01-01" in untrusted
    assert "quality.totals" in untrusted
    assert not re.search("<svg|<style", untrusted)
