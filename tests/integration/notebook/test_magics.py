"""Tests the magics in a real IPython shell with a real stack."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from IPython.core.error import UsageError

import temporal_airflow_nb as ta
from temporal_airflow_nb import Run
from temporal_airflow_nb.errors import (
    DagFileError,
    DagNotFoundError,
    InvalidConfError,
    InvalidInputError,
    PreflightError,
    TemporalAirflowError,
)
from tests.support.waiting import until

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


def test_a_cell_runs_and_sets_the_variable_run(dag, stack, capsys):
    run = dag()
    assert isinstance(run, Run)
    assert run.wait(timeout=60) == "success"
    assert list(run.xcoms["value"]) == ["hello you {not a variable}"]
    assert "greet" in capsys.readouterr().out
    assert cell_file(stack, "greet.py").read_text().splitlines()[1:] == CELL.splitlines()[1:]


def test_wait_returns_when_the_run_has_ended(dag):
    run = dag("--wait")
    assert run._last_snapshot["state"] == "success"


def test_conf_takes_quotes_and_braces(dag):
    run = dag("""--wait --conf '{"name": "{x} $y"}'""")
    assert list(run.xcoms["value"]) == ["hello {x} $y {not a variable}"]


def test_a_cell_with_several_dags_needs_a_dag_id(dag, stack):
    body = CELL + CELL.replace("greet", "greet_again")
    with pytest.raises(DagNotFoundError, match="The cell defines 2 DAGs") as caught:
        dag(body=body)
    assert "--dag-id" in caught.value.hint
    assert dag("--dag-id greet_again", body).dag_id == "greet_again"


def test_the_option_name_is_the_name_of_the_file(dag, stack):
    dag("--name chosen")
    assert cell_file(stack, "chosen.py").exists()
    cell_file(stack, "chosen.py").unlink()


def test_an_edited_cell_runs_with_its_edits(dag):
    dag("--wait")
    run = dag("--wait", CELL.replace("hello {", "bye {"))
    assert list(run.xcoms["value"]) == ["bye you {not a variable}"]


def test_a_cell_that_does_not_compile_is_not_written(dag, stack):
    before = sorted((stack.home / "notebook").iterdir())
    with pytest.raises(DagFileError, match="cell line 3: "):
        dag(body="x = 1\ndef broken(:\n    pass\n")
    assert sorted((stack.home / "notebook").iterdir()) == before


def test_a_cell_that_does_not_import_keeps_the_former_file(dag, stack):
    dag()
    before = cell_file(stack, "greet.py").read_text()
    with pytest.raises(DagFileError, match="cell line 12: ZeroDivisionError"):
        dag(body=CELL + "1 / 0\n")
    assert cell_file(stack, "greet.py").read_text() == before


def test_a_cell_without_a_dag_leaves_no_file(dag, stack, shell):
    with pytest.raises(DagFileError, match="The cell defines no DAG"):
        dag(body="x = str(1)\n")
    assert not cell_file(stack, f"cell_{shell.ip.execution_count}.py").exists()


def test_nothing_starts_for_bad_options(shell, tmp_path):
    home = tmp_path / "unused"
    for options, error in [
        ("--conf '{'", InvalidConfError),
        ("--conf '[1]'", InvalidConfError),
        ("--name a/b", InvalidInputError),
        ("--nope", UsageError),
        ('--conf \'{"a": 1}', UsageError),
    ]:
        with pytest.raises(error):
            shell.run(f"%%temporal_dag --home {home} {options}\n{CELL}")
    with pytest.raises(DagFileError, match="The cell defines no DAG"):
        shell.run(f"%%temporal_dag --home {home}\n# later\n")
    assert not home.exists()


def test_unknown_flags_are_answered_with_a_suggestion(shell):
    for options, hint in [
        ("--cnof '{}'", "Did you mean --conf?"),
        ("--no-runs", "Did you mean --no-run?"),
        ('--conf {"day": 1}', "Put JSON in quotes"),
    ]:
        with pytest.raises(UsageError, match=hint):
            shell.run(f"%%temporal_dag {options}\n{CELL}")


def test_errors_are_one_message_without_a_traceback(dag, shell, capsys):
    shell.ip.run_cell("%%temporal_dag\nx = = 1\n")
    shown = capsys.readouterr()
    assert "DagFileError: cell line 2: " in shown.out + shown.err
    assert "Traceback" not in shown.out + shown.err
    assert issubclass(DagFileError, TemporalAirflowError)


def test_help_fits_a_screen(shell):
    text = shell.ip.find_cell_magic("temporal_dag").__doc__
    options = "--run --no-run --wait --conf --params --name --dag-id --backfill --write-to --view --worker-lost --home"
    assert all(f"{option} " in text or f"{option}\n" in text for option in options.split())
    assert len(text.splitlines()) <= 40


DAILY = CELL.replace("schedule=None", 'schedule="@daily", start_date=START').replace(
    "@dag(", "START = datetime(2026, 1, 1, tzinfo=timezone.utc)\n\n@dag("
)
DAILY = "from datetime import datetime, timezone\n" + DAILY.replace("greet", "greet_daily")


def test_params_are_json_or_text(dag):
    run = dag("--wait --params 'name=Ann Lee'")
    assert list(run.xcoms["value"]) == ["hello Ann Lee {not a variable}"]
    run = dag('--wait --params name=3 --conf \'{"name": "overruled"}\'')
    assert list(run.xcoms["value"]) == ["hello 3 {not a variable}"]


@pytest.mark.parametrize("written", ["""--conf='{"name": "x"}'""", r"""--conf "{\"name\": \"x\"}" """])
def test_quotes_work_as_in_a_shell(dag, written):
    assert list(dag(f"--wait {written}").xcoms["value"]) == ["hello x {not a variable}"]


def test_an_unknown_param_is_refused_with_a_suggestion(dag):
    with pytest.raises(InvalidConfError, match="'greet' has no param 'nmae'") as caught:
        dag("--params nmae=x")
    assert caught.value.hint == "Did you mean name?"
    with pytest.raises(InvalidInputError, match="has no value"):
        dag("--params name")


def test_params_are_checked_by_their_schema_before_anything_is_stored(dag, stack):
    body = CELL.replace('"you"', 'Param("you", type="string", maxLength=5)').replace(
        "import dag", "import Param, dag"
    )
    body = body.replace("greet", "greet_shortly")
    for what in ("", "--backfill 2026-01-01 2026-01-02 "):
        with pytest.raises(InvalidConfError, match="too long"):
            dag(f"{what}--params name=Bartholomew", body)
    assert not cell_file(stack, "greet_shortly.py").exists()
    assert "greet_shortly" not in set(ta.dags(client=stack.client)["dag_id"])


def test_no_run_checks_and_stores(dag, shell, stack, capsys):
    shell.ns.pop("run", None)
    shell.run("%%temporal_dag --no-run\n" + CELL.replace("greet", "greet_stored"))
    assert capsys.readouterr().out == "Stored greet_stored without a run.\n"
    assert "run" not in shell.ns
    shell.run("import temporal_airflow_nb as ta; known = set(ta.dags()['dag_id'])")
    assert "greet_stored" in shell.ns["known"]
    assert cell_file(stack, "greet_stored.py").exists()


def test_a_backfill_creates_a_run_for_each_date(dag, shell):
    run = dag("--wait --backfill 2026-01-02 2026-01-04", DAILY)
    runs = shell.ns["runs"]
    assert [r.run_id[:20] for r in runs] == [f"backfill__2026-01-0{day}" for day in (2, 3, 4)]
    assert runs[0] is run
    assert (runs.state, runs.states) == ("success", ["success"] * 3)
    assert list(runs.frame()["state"]) == ["success"] * 3
    assert "2026-01-03" in runs._repr_html_()


@pytest.mark.parametrize(
    ("dates", "body", "words"),
    [
        ("2026-01-01 2026-01-02", CELL, "non-periodic schedule"),
        ("2026-01-03 2026-01-02", DAILY, "must not be after"),
        ("yesterday 2026-01-02", DAILY, "'yesterday' isn't a date"),
    ],
)
def test_an_impossible_backfill_is_refused(dag, dates, body, words):
    with pytest.raises(InvalidInputError, match=words) as caught:
        dag(f"--backfill {dates}", body)
    assert caught.value.hint


def test_write_to_writes_a_plain_file(dag, tmp_path):
    path = tmp_path / "greet.py"
    dag(f"--write-to {path}")
    assert "def greet()" in path.read_text()
    assert "temporal_dag" not in path.read_text()
    dag(f"--write-to {path}", CELL.replace("hello {", "bye {"))
    assert "bye {" in path.read_text()
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(InvalidInputError, match="was edited since a cell wrote it") as caught:
        dag(f"--write-to {path}")
    assert "--force" in caught.value.hint
    assert path.read_text().endswith("# mine\n")
    dag(f"--force --write-to {path}")
    assert not path.read_text().endswith("# mine\n")


def test_write_to_needs_a_writable_path_of_a_python_file(dag, tmp_path):
    (tmp_path / "folder.py").mkdir()
    for path, words in (
        (tmp_path / "x.txt", "Python file"),
        (tmp_path / "none" / "x.py", "no folder"),
        (tmp_path / "folder.py", "Is a directory"),
        ("/proc/x.py", "can't be written"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            dag(f"--write-to {path}")


def test_view_none_shows_nothing(dag, capsys):
    dag("--wait --view none")
    assert "greet" not in capsys.readouterr().out


def test_worker_lost_is_stored_with_the_run(dag, stack):
    run = dag("--wait --worker-lost fail")
    with closing(sqlite3.connect(stack.home / "airflow" / "airflow.db")) as database:
        query = "SELECT on_worker_lost FROM temporal_airflow_workflow WHERE run_id = ?"
        assert until(lambda: database.execute(query, [run.run_id]).fetchone() == ("fail",))
    with pytest.raises(UsageError, match="rerun"):
        dag("--worker-lost maybe")


def test_warnings_are_shown_once_and_errors_stop(stack, shell, monkeypatch, capsys):
    monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", str(stack.home))
    body = """from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG("checked", schedule=None):
    BashOperator(task_id="echo", bash_command="echo {{ var.value.no_such }}")
"""
    shell.run(f"%%temporal_dag --no-run\n{body}")
    said = capsys.readouterr().out
    assert said.count("There is no variable 'no_such'") == 1
    assert "cell line 6" in said
    assert "airflow variables set no_such VALUE" in said
    edited = body.replace("bash_command", "pool='no_such', bash_command")
    with pytest.raises(PreflightError, match="cell line 6: There is no pool 'no_such'") as caught:
        shell.run(f"%%temporal_dag\n{edited}")
    assert "airflow pools set" in caught.value.hint
    assert "run" not in shell.ns


def test_line_magics_show_the_stack_and_its_runs(dag, shell, stack, capsys):
    run = dag("--wait")
    shell.run("status = %temporal_status")
    assert shell.ns["status"]["where"]["state folder"] == str(stack.home)
    assert "worker" in repr(shell.ns["status"])
    shell.run("up = %temporal_up")
    assert shell.ns["up"]["services"] == shell.ns["status"]["services"]
    shell.run("found = %temporal_runs greet --state success --limit 2")
    assert shell.ns["found"]["run_id"][0] == run.run_id
    shell.run("%temporal_show greet")
    assert shell.ns["run"].run_id == run.run_id
    shell.run(f"%temporal_show {run.run_id}")
    assert shell.ns["run"].run_id == run.run_id
    shell.run("page = %temporal_ui temporal")
    assert shell.ns["page"] == stack.links["temporal"]
    with pytest.raises(UsageError):
        shell.run("%temporal_ui nope")


def test_every_magic_has_a_docstring(shell):
    for name in ("up", "down", "status", "runs", "show", "ui"):
        assert shell.ip.find_line_magic(f"temporal_{name}").__doc__


def test_down_reports_whether_a_stack_was_running(shell, tmp_path, capsys):
    shell.run(f"%temporal_down --home {tmp_path / 'none'}")
    assert "No stack runs in" in capsys.readouterr().out


def test_unloading_removes_everything(shell, dag):
    dag()
    shell.run("%unload_ext temporal_airflow_nb")
    assert shell.ip.find_cell_magic("temporal_dag") is None
    assert shell.ip.find_line_magic("temporal_down") is None
    assert "TemporalMagics" not in shell.ip.magics_manager.registry
    assert not [known for known in shell.ip.configurables if "TemporalDag" in type(known).__name__]
    assert shell.ip.Completer.custom_matchers == []
    for _ in range(2):
        shell.run("%load_ext temporal_airflow_nb")
        assert shell.ip.find_cell_magic("temporal_dag") is not None
        assert len(shell.ip.Completer.custom_matchers) == 1
        shell.run("%unload_ext temporal_airflow_nb")
    assert shell.ip.Completer.custom_matchers == []
    shell.run("%load_ext temporal_airflow_nb")
    shell.run("%reload_ext temporal_airflow_nb")
    assert len(shell.ip.Completer.custom_matchers) == 1


def test_unloading_keeps_a_stack_that_another_process_started(shell, dag, stack):
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
