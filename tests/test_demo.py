"""The demo, and the notebook that it executes."""

from __future__ import annotations

import os
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from temporal_airflow_nb import LocalStack, demo

ROOT = demo.NOTEBOOK.parents[1]


@pytest.fixture
def run(tmp_path):
    def run(*arguments):
        env = {**os.environ, "TEMPORAL_AIRFLOW_HOME": "state", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "temporal_airflow_nb.demo", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=170, cwd=tmp_path, env=env)
        assert not LocalStack(tmp_path / "state").is_running
        return done

    return run


@pytest.fixture
def notebook(tmp_path):
    def write(*sources):
        path = tmp_path / "demo.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
        return path

    return write


@pytest.mark.slow
def test_the_demo_prints_the_quickstarts_grid_and_leaves_nothing_running(run, tmp_path):
    before = demo.NOTEBOOK.read_bytes()
    done = run()
    assert done.returncode == 0, done.stderr
    headline, *rest = done.stdout.splitlines()
    assert headline.startswith("✓ harvest · manual__")
    assert any("✓ weigh [4]  4 success  try 2 of 3" in line for line in rest)
    assert demo.NOTEBOOK.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state"]


def test_a_notebook_that_isnt_there_is_bad_input(run):
    done = run("nope.ipynb")
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no notebook nope.ipynb" in done.stderr


def test_a_cell_that_fails_fails_the_demo(run, notebook):
    done = run(notebook("1 / 0"))
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "nbclient" not in done.stderr.splitlines()[0]


def test_a_notebook_without_a_run_fails_the_demo(run, notebook):
    done = run(notebook("1 + 1"))
    assert done.returncode == 1
    assert done.stdout == "The notebook shows no run.\n"


def test_the_quickstart_is_kept_with_its_outputs():
    kept = nbformat.read(demo.NOTEBOOK, as_version=4)
    nbformat.validate(kept)
    state, text = demo.last_grid(kept)
    assert state == "success"
    assert "weigh [4]" in text
    assert str(ROOT) not in demo.NOTEBOOK.read_text()
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [out for cell in code for out in cell.outputs if out.output_type == "error"]
