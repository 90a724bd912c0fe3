"""The magics in a real IPython shell, against the real stack."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from IPython.core.error import UsageError

from temporal_airflow_nb import Run
from temporal_airflow_nb.errors import (
    DagFileError,
    DagNotFoundError,
    InvalidConfError,
    InvalidInputError,
    TemporalAirflowError,
)

CELL = """
from airflow.sdk import dag, get_current_context, task

@dag(schedule=None, params={"name": "you"})
def greet():
    @task
    def hello():
        return f"hello {get_current_context()['params']['name']} {{not a variable}}"
    hello()

greet()
"""


@pytest.fixture
def dag(shell, stack, monkeypatch):
    """Run a cell under ``%%temporal_dag`` on the stack that tests share."""
    monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", str(stack.home))

    def run(options="", body=CELL):
        shell.run(f"%%temporal_dag {options}{body if body.startswith(chr(10)) else chr(10) + body}")
        return shell.ns["run"]

    return run


def cell_file(stack, name):
    return stack.home / "notebook" / name


def test_a_cell_runs_and_leaves_its_run(dag, stack, capsys):
    run = dag()
    assert isinstance(run, Run)
    assert run.wait(timeout=60) == "success"
    assert list(run.xcoms["value"]) == ["hello you {not a variable}"]
    assert "greet" in capsys.readouterr().out
    assert cell_file(stack, "greet.py").read_text().splitlines()[1:] == CELL.splitlines()[1:]


def test_wait_returns_when_the_run_has_ended(dag):
    run = dag("--wait")
    assert run._last["state"] == "success"


def test_conf_takes_quotes_and_braces(dag):
    run = dag("""--wait --conf '{"name": "{x} $y"}'""")
    assert list(run.xcoms["value"]) == ["hello {x} $y {not a variable}"]


def test_a_cell_with_several_dags_needs_to_be_told_which(dag, stack):
    body = CELL + CELL.replace("greet", "greet_again")
    with pytest.raises(DagNotFoundError, match="the cell defines 2 DAGs") as caught:
        dag(body=body)
    assert "--dag-id" in caught.value.hint
    assert dag("--dag-id greet_again", body).dag_id == "greet_again"


def test_a_name_is_the_files(dag, stack):
    dag("--name chosen")
    assert cell_file(stack, "chosen.py").exists()
    cell_file(stack, "chosen.py").unlink()


def test_an_edited_cell_is_what_runs_next(dag):
    dag("--wait")
    run = dag("--wait", CELL.replace("hello {", "bye {"))
    assert list(run.xcoms["value"]) == ["bye you {not a variable}"]


def test_a_cell_that_does_not_compile_is_not_written(dag, stack):
    before = sorted((stack.home / "notebook").iterdir())
    with pytest.raises(DagFileError, match="cell line 3: "):
        dag(body="x = 1\ndef broken(:\n    pass\n")
    assert sorted((stack.home / "notebook").iterdir()) == before


def test_a_cell_that_does_not_import_leaves_the_file_before(dag, stack):
    dag()
    before = cell_file(stack, "greet.py").read_text()
    with pytest.raises(DagFileError, match="cell line 12: ZeroDivisionError"):
        dag(body=CELL + "1 / 0\n")
    assert cell_file(stack, "greet.py").read_text() == before


def test_a_cell_without_a_dag_leaves_nothing(dag, stack, shell):
    with pytest.raises(DagFileError, match="the cell defines no DAG"):
        dag(body="x = 1\n")
    assert not cell_file(stack, f"cell_{shell.ip.execution_count}.py").exists()


def test_nothing_starts_for_bad_options(shell, tmp_path):
    home = tmp_path / "unused"
    for options, error in [
        ("--conf '{'", InvalidConfError),
        ("--conf '[1]'", InvalidConfError),
        ("--name a/b", InvalidInputError),
        ("--nope", UsageError),
    ]:
        with pytest.raises(error):
            shell.run(f"%%temporal_dag --home {home} {options}\n{CELL}")
    assert not home.exists()


def test_errors_are_one_message_without_a_traceback(dag, shell, capsys):
    shell.ip.run_cell("%%temporal_dag\nx = = 1\n")
    shown = capsys.readouterr()
    assert "DagFileError: cell line 2: " in shown.out + shown.err
    assert "Traceback" not in shown.out + shown.err
    assert issubclass(DagFileError, TemporalAirflowError)


def test_help_fits_a_screen(shell):
    text = shell.ip.find_cell_magic("temporal_dag").__doc__
    for option in ("--wait", "--conf", "--dag-id", "--name", "--home"):
        assert option in text
    assert len(text.splitlines()) < 40


def test_down_says_whether_there_was_a_stack(shell, tmp_path, capsys):
    shell.run(f"%temporal_down --home {tmp_path / 'none'}")
    assert "No stack runs in" in capsys.readouterr().out


def test_unloading_leaves_no_trace(shell, dag):
    dag()
    shell.run("%unload_ext temporal_airflow_nb")
    assert shell.ip.find_cell_magic("temporal_dag") is None
    assert shell.ip.find_line_magic("temporal_down") is None
    assert "TemporalMagics" not in shell.ip.magics_manager.registry
    shell.run("%load_ext temporal_airflow_nb")
    assert shell.ip.find_cell_magic("temporal_dag") is not None


def test_unloading_leaves_a_stack_that_others_started(shell, dag, stack):
    dag()
    shell.run("%unload_ext temporal_airflow_nb")
    assert stack.is_running
    shell.run("%load_ext temporal_airflow_nb")


def test_loading_imports_neither_airflow_nor_temporal_nor_pandas():
    code = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
ip = InteractiveShell()
ip.run_line_magic("load_ext", "temporal_airflow_nb")
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1])
    assert not {"airflow", "temporalio", "pandas", "rich", "sqlalchemy"} & set(loaded)
