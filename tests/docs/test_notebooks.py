"""Tests that the notebooks still produce their stored outputs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from temporal_airflow_nb import LocalStack
from temporal_airflow_nb.cli import demo
from temporal_airflow_nb.display.states import FINAL_RUN_STATES
from temporal_airflow_nb.live_grid.live import METADATA

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

FOLDER = demo.NOTEBOOK.parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
RENEW = "renew it: python -m temporal_airflow_nb.cli.demo --save notebooks/{}.ipynb"

# Text that differs in each run or on each machine.
CHANGING = re.compile(
    r"""
    \d{4}-\d\d-\d\d[T ][\d:.]+(?:[+-]\d\d:\d\d|Z)?  # a time
    | -?\d+\ days\ [+-]?[\d:.]+                     # a duration in a frame
    | \d+(?:\.\d+)?\ (?:ms|s|min|h)\b               # a duration in a grid
    | \b\d+\.\d{3,}                                 # a ratio of durations
    | \d+(?=\ frames\ in)                           # of Airflow's own
    """,
    re.VERBOSE,
)
# A warning may depend on the duration of a step.
WARNING = "warning: "
# Links, and lines of logs: a card shows only the lines that were written in time.
PASSING = re.compile(r"\s*(?:(?:temporal|airflow): \S+|[\d:.]+ +[A-Z]+ )")


def outline(notebook) -> list[list[str]]:
    """Return the lines of each cell's outputs, without the changing parts."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[line for output in cell.outputs for line in output_lines(output)] for cell in cells]


def output_lines(output) -> list[str]:
    facts = output.get("metadata", {}).get(METADATA)
    if facts and facts["state"] not in FINAL_RUN_STATES:
        return [facts["dag_id"], facts["state"]]
    text = output.get("text") or output.get("data", {}).get("text/plain") or output.get("evalue")
    if text.startswith(WARNING):
        return []
    kinds = " ".join(sorted(output.get("data", ())))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not PASSING.match(line)]
    return [f"{output.output_type} {kinds}", *(" ".join(CHANGING.sub("…", line).split()) for line in lines)]


@pytest.fixture(scope="module")
def executed(request, tmp_path_factory):
    """Execute a notebook with the demo, in a copy of the folder; return the notebook and the demo's output."""
    root = tmp_path_factory.mktemp(request.param)
    folder = root / "notebooks"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns(".*"))
    env = {**os.environ, "TEMPORAL_AIRFLOW_HOME": str(root / "state"), "PYTHONPATH": str(FOLDER.parent)}
    path = folder / f"{request.param}.ipynb"
    command = [sys.executable, "-m", "temporal_airflow_nb.cli.demo", "--save", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=380, env=env)
    assert done.returncode == 0, done.stderr
    assert not LocalStack(root / "state").is_running
    return nbformat.read(path, as_version=4), done.stdout


def stored_notebook(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def only(name):
    return pytest.mark.parametrize("executed", [name], indirect=True, ids=[name])


@pytest.mark.parametrize("executed", NAMES, indirect=True)
def test_the_stored_outputs_are_up_to_date(executed, request):
    name = request.node.callspec.params["executed"]
    notebook, _ = executed
    nbformat.validate(notebook)
    for fresh, stored in zip(outline(notebook), outline(stored_notebook(name)), strict=True):
        assert fresh == stored, RENEW.format(name)


@only("quickstart")
def test_the_quickstart_ends_with_the_repaired_dag(executed):
    notebook, printed = executed
    assert printed.startswith("✓ market · ")
    assert runs(notebook) == [("harvest", "success")] * 2 + [("market", "failed"), ("market", "success")]


@only("etl")
def test_the_etl_takes_both_branches(executed):
    notebook, _ = executed
    (compared,) = [text for text in texts(notebook) if text.startswith("a: seattle")]
    assert re.search(r"\bumbrella +-1 success skipped", compared)
    assert re.search(r"\bsunglasses +-1 skipped success", compared)


@only("kill_the_kernel")
def test_a_run_outlives_its_kernel_and_no_task_runs_twice(executed):
    notebook, _ = executed
    assert runs(notebook) == [("patient", "running"), ("patient", "success")]
    (tries,) = [text for text in texts(notebook) if "count  max" in text]
    assert [line.split() for line in tries.splitlines()[2:]] == [["count", "1", "1"], ["step", "24", "1"]]
    assert texts(notebook)[-1] == "(24, 24)"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stored_with_the_outputs_of_a_user(name):
    notebook = stored_notebook(name)
    nbformat.validate(notebook)
    assert str(FOLDER.parent) not in (FOLDER / f"{name}.ipynb").read_text()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    lives = [[]]
    for cell in code:
        if demo.KILL in cell.metadata.get("tags", ()):
            lives.append([])
        else:
            lives[-1].append(cell.execution_count)
    assert lives == [list(range(1, len(life) + 1)) for life in lives]
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [text for text in texts(notebook) if text.startswith(WARNING)]


def runs(notebook) -> list[tuple[str, str]]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    found = [output.get("metadata", {}).get(METADATA) for output in outputs]
    return [(facts["dag_id"], facts["state"]) for facts in found if facts]


def texts(notebook) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output["data"]["text/plain"] for output in outputs if "data" in output]
