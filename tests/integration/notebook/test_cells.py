"""Tests DAGs of cells that use other cells, on a real stack."""

from __future__ import annotations

import re
import sys

import pytest

from temporal_airflow_nb import Run
from temporal_airflow_nb.cells import prepare
from temporal_airflow_nb.errors import DagFileError
from temporal_airflow_nb.messages.requests import SubmitFile
from tests.support.paths import DOCS

EARLIER = [
    "import json as j\nfrom functools import wraps\nimport cells_helpers\nRATE = 2",
    """
def logged(function):
    @wraps(function)
    def inner(*args):
        print(j.dumps({"rate": RATE}))
        return function(*args)
    return inner


class Row:
    def __init__(self, n): self.n = n
    def value(self): return cells_helpers.twice(self.n)
""",
    """
@logged
def total(n):
    if n < 0:
        raise ValueError("negative")
    return Row(n).value() * RATE
""",
]

CELL = """
from airflow.sdk import dag, task

@dag(schedule=None, params={"n": 3})
def of_several_cells():
    @task
    def load(params=None):
        return total(params["n"])
    load()

of_several_cells()
"""


@pytest.fixture
def notebook(shell, stack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "cells_helpers.py").write_text("def twice(n):\n    return n * 2\n")
    shell.ip.execution_count = 1
    for source in EARLIER:
        shell.ip.run_cell(source, store_history=True).raise_error()

    def prepare_cell(cell=CELL, name=None):
        prepared = prepare.prepare(
            cell,
            shell_ns=shell.ns,
            history=shell.ip.history_manager.input_hist_raw,
            execution_count=shell.ip.execution_count,
            name=name,
            folder=tmp_path,
        )
        assert [finding for finding in prepared.findings if finding.level == "error"] == []
        return prepared

    yield prepare_cell
    sys.modules.pop("cells_helpers", None)


@pytest.fixture
def run(notebook, stack):
    def run(cell=CELL, conf=None, name=None):
        prepared = notebook(cell, name)
        with prepare.stored_file(stack.home, prepared.file_name, prepared.source) as path:
            answer = stack.client.submit_file(SubmitFile(str(path), conf=conf))
        return Run(stack.client, answer["dag_id"], answer["run_id"])

    return run


def test_a_cell_runs_with_code_of_other_cells_and_an_edited_module(run, tmp_path):
    first = run()
    assert first.wait(timeout=60) == "success"
    assert list(first.xcoms["value"]) == [12]
    assert '{"rate": 2}' in first.logs("load")
    (tmp_path / "cells_helpers.py").write_text("def twice(n):\n    return n * 20\n")
    again = run()
    assert again.wait(timeout=60) == "success"
    assert list(again.xcoms["value"]) == [120]


def test_an_error_is_shown_at_the_lines_of_the_cells(run):
    failed = run(conf={"n": -1})
    assert failed.wait(timeout=60) == "failed"
    log = failed.logs("load")
    assert "Cell In [4], line 9, in load" in log
    assert "Cell In [2], line 6, in inner" in log
    assert "Cell In [3], line 5, in total" in log
    assert 'of_several_cells.py", line' not in log


def test_an_error_while_parsing_names_the_cells(run, stack):
    with pytest.raises(DagFileError, match=r"cell line 13: ZeroDivisionError"):
        run(CELL.rstrip() + "\nRATE / 0\n")
    with pytest.raises(DagFileError, match=r"In \[3\], line 5: ValueError: negative") as caught:
        run(CELL + "total(-1)\n")
    assert caught.value.facts["line"] is None


def test_a_plain_file_is_serialized_identically(notebook, stack, tmp_path):
    prepared = notebook(CELL.replace("schedule=None", "default_args={'retries': RATE}, doc_md=__doc__"))
    assert "# %%" not in prepared.plain
    plain = tmp_path / prepared.file_name
    plain.write_text(prepared.plain)
    with prepare.stored_file(stack.home, prepared.file_name, prepared.source) as path:
        [of_cell] = stack.client.check_file(str(path))["dags"]
        [of_file] = stack.client.check_file(str(plain))["dags"]
    assert of_cell == of_file
    assert of_cell["serialized_hash"]
    changed = notebook(CELL)
    plain.write_text(changed.plain)
    [other] = stack.client.check_file(str(plain))["dags"]
    assert other["serialized_hash"] != of_cell["serialized_hash"]


FACTORY = """
from airflow.sdk import DAG, task

for n in range(RATE):
    with DAG(f"made_{n}", schedule=None):
        @task
        def say(): return n
        say()
"""


def test_dags_created_in_a_loop_keep_their_file(notebook, stack):
    prepared = notebook(FACTORY)
    assert prepared.file_name == "made_n.py"
    with prepare.stored_file(stack.home, prepared.file_name, prepared.source) as path:
        answer = stack.client.check_file(str(path))
    assert sorted(dag["dag_id"] for dag in answer["dags"]) == ["made_0", "made_1"]


def test_a_renamed_dag_disappears_and_its_runs_stay(run, stack):
    def dags():
        return set(stack.client.get_dags_table()["columns"]["dag_id"])

    first = run(CELL.replace("of_several_cells", "renamed_1"), name="renamed")
    assert "renamed_1" in dags()
    assert first.wait(timeout=60) == "success"
    run(CELL.replace("of_several_cells", "renamed_2"), name="renamed")
    assert "renamed_1" not in dags()
    assert "renamed_2" in dags()
    assert first.state == "success"
    run(CELL.replace("of_several_cells", "renamed_1"), name="renamed")
    assert "renamed_1" in dags()


def test_cells_of_a_real_kernel_are_captured(kernel):
    kernel.run(
        "from dataclasses import dataclass\n@dataclass\nclass Row:\n    n: int\n    def twice(self): return self.n * 2"
    )
    kernel.run("%time ROWS = [Row(1), Row(2)]\nsumming = lambda rows: sum(row.twice() for row in rows)")
    cell = CELL.replace('total(params["n"])', "summing(ROWS)").replace("of_several_cells", "of_a_kernel")
    kernel.run(f"%%temporal_dag --wait{cell}")
    assert kernel.value("list(run.xcoms['value'])") == [6]


def test_the_examples_of_the_cells_page_run(shell, stack, tmp_path, monkeypatch, capsys):
    page = (DOCS / "cells.md").read_text()
    monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", str(stack.home))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shop.py").write_text("prices = {'tea': 10, 'cake': 20}\n")
    for source in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        shell.ip.run_cell(source, store_history=True).raise_error()
    assert list(shell.ns["run"].xcoms["value"]) == [36.0]
    part = re.search(r"```\n(# %% .*?)    \.\.\.\n```", page, re.DOTALL)[1]
    assert part in (stack.home / "notebook" / "sales.py").read_text()
    sys.modules.pop("shop")
