"""The demo, and the notebook that it executes."""

from __future__ import annotations

import os
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from temporal_airflow_nb import LocalStack
from temporal_airflow_nb.cli import demo

ROOT = demo.NOTEBOOK.parents[1]


@pytest.fixture
def run(tmp_path):
    def run(*arguments):
        env = {**os.environ, "TEMPORAL_AIRFLOW_HOME": "state", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "temporal_airflow_nb.cli.demo", *map(str, arguments)]
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


def test_a_missing_notebook_is_bad_input(run):
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


def test_outputs_are_kept_only_when_asked(run, notebook):
    path = notebook("1 + 1")
    before = path.read_bytes()
    run(path)
    assert path.read_bytes() == before
    run("--save", path)
    assert nbformat.read(path, as_version=4).cells[0].outputs[0].data["text/plain"] == "2"


def test_cells_below_a_killed_kernel_run_in_a_new_one(run, tmp_path):
    path = tmp_path / "killed.ipynb"
    killing = new_code_cell("1 / 0", metadata={"tags": [demo.KILL]})
    cells = [new_code_cell("left = 1"), killing, new_code_cell("'left' in globals()")]
    nbformat.write(new_notebook(cells=cells), path)
    run("--save", path)
    first, killing, last = nbformat.read(path, as_version=4).cells
    assert [first.execution_count, killing.execution_count, last.execution_count] == [1, None, 1]
    assert last.outputs[0].data["text/plain"] == "False"


def test_the_default_notebook_is_the_quickstart():
    assert demo.NOTEBOOK == ROOT / "notebooks" / "quickstart.ipynb"
    assert demo.NOTEBOOK.is_file()
