"""Tests that the code of docs/frames.md runs, and that the page names every column."""

from __future__ import annotations

import re

import pytest
from IPython.core.interactiveshell import InteractiveShell

from temporal_airflow_nb.dag_runs.frames import FRAMES
from temporal_airflow_nb.stack import current
from tests.support.paths import DOCS

PAGE = (DOCS / "frames.md").read_text()


@pytest.fixture(scope="module")
def shell(stack):
    current.use(stack)
    shell = InteractiveShell()
    load, cell, *others = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for source in (load, cell, cell, *others):
        shell.run_cell(source).raise_error()
    yield shell
    current.use(None)


def test_the_code_of_the_page_runs(shell):
    found = shell.user_ns
    assert len(found["failed"]) == 1
    assert set(found["waited"].index) == {"days", "load"}
    assert "activity started" in set(found["of_tuesday"]["type"])
    assert len(found["daily"]) == 1
    assert found["after"].run_id != found["before"].run_id


@pytest.mark.parametrize("name", FRAMES)
def test_the_page_names_every_column(shell, name):
    (row,) = re.findall(rf"^\| `run\.{name}` \|.*\|$", PAGE, re.MULTILINE)
    assert re.findall(r"`(\w+)`", row) == list(shell.user_ns["run"].frame(name).columns)


def test_the_page_names_every_column_of_a_comparison(shell):
    for column in shell.user_ns["comparison"].frame.columns:
        if column not in {"task_id", "map_index"}:
            assert f"`{column}`" in PAGE
