"""Checks of a DAG file before it runs, on a real stack."""

from __future__ import annotations

import pytest

from temporal_airflow_nb.errors import DagFileError, PreflightError
from temporal_airflow_nb.messages.requests import SubmitFile

HEAD = """from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

"""


@pytest.fixture
def check(stack, tmp_path):
    """Check a file with this source; returns the findings."""

    def check(source):
        path = tmp_path / "checked.py"
        path.write_text(HEAD + source)
        return stack.client.check_file(str(path))["findings"]

    return check


CYCLE = """with DAG("cyclic", schedule=None):
    a = BashOperator(task_id="a", bash_command="x")
    b = BashOperator(task_id="b", bash_command="x")
    a >> b >> a
"""
TWICE = """with DAG("twice", schedule=None):
    BashOperator(task_id="a", bash_command="x")
    BashOperator(task_id="a", bash_command="y")
"""
TIMETABLE = """from airflow.timetables.base import Timetable

class Mine(Timetable):
    pass

with DAG("timed", schedule=Mine()):
    BashOperator(task_id="a", bash_command="x")
"""
READS = """from airflow.sdk import Variable

with DAG("reads", schedule=None):
    BashOperator(task_id="a", bash_command=Variable.get("no_such"))
"""


@pytest.mark.parametrize(
    ("source", "code", "line", "words"),
    [
        (CYCLE, "cycle", 6, "there is a cycle with 'b' in it"),
        (TWICE, "duplicate-task-id", 6, "Two tasks have the task_id 'a'"),
        (TIMETABLE, "not-serializable", 6, "Airflow doesn't know the class Mine"),
        (READS, "missing-variable", 7, "Variable 'no_such' is read while the file is imported"),
    ],
    ids=["cycle", "duplicate", "timetable", "variable"],
)
def test_airflows_own_errors_have_a_line_and_a_fix(check, source, code, line, words):
    with pytest.raises(PreflightError, match=f"line {line}: ") as caught:
        check(source)
    (found,) = caught.value.facts["findings"]
    assert (found["level"], found["code"], found["line"]) == ("error", code, line)
    assert words in caught.value.message
    assert caught.value.hint


def test_other_errors_of_the_import_have_their_line(check):
    with pytest.raises(DagFileError, match="line 4: ZeroDivisionError") as caught:
        check("1 / 0\n")
    assert caught.value.hint == "1 / 0"


def test_missing_pools_variables_and_connections_are_found(check):
    found = check("""with DAG("names", schedule=None):
    BashOperator(task_id="a", bash_command="echo {{ conn.no_such_conn.host }}")
    BashOperator(task_id="b", bash_command="{{ var.value.no_such_var }}", pool="no_such_pool")
    BashOperator(task_id="c", bash_command="x", pool="default_pool")
""")
    assert [(f["level"], f["code"], f["line"]) for f in found] == [
        ("warning", "missing-connection", 5),
        ("error", "missing-pool", 6),
        ("warning", "missing-variable", 6),
    ]
    assert all(f["hint"] for f in found)


def test_a_start_date_in_the_future_is_found(check):
    (found,) = check("""from datetime import datetime, timedelta, timezone

with DAG("later", schedule=None, start_date=datetime.now(timezone.utc) + timedelta(days=900)):
    BashOperator(task_id="a", bash_command="x")
""")
    assert (found["level"], found["code"], found["dag_id"]) == ("warning", "future-start-date", "later")


def test_errors_stop_a_submission_before_anything_is_stored(stack, tmp_path):
    path = tmp_path / "stopped.py"
    path.write_text(
        HEAD
        + 'with DAG("stopped", schedule=None):\n    BashOperator(task_id="a", bash_command="x", pool="none")\n'
    )
    with pytest.raises(PreflightError, match=r"stopped.py, line 5: There is no pool 'none'"):
        stack.run(path)
    assert stack.client.list_runs("stopped") == []


def test_an_error_in_another_dag_of_the_file_is_a_warning(stack, tmp_path):
    path = tmp_path / "beside.py"
    path.write_text(
        HEAD
        + 'with DAG("sound_one", schedule=None):\n    BashOperator(task_id="a", bash_command="true")\n'
        + 'with DAG("other_one", schedule=None):\n    BashOperator(task_id="b", bash_command="x", pool="none")\n'
    )
    answer = stack.client.submit_file(SubmitFile(str(path), "sound_one"))
    assert [(f["level"], f["code"], f["dag_id"]) for f in answer["findings"]] == [
        ("warning", "missing-pool", "other_one")
    ]
    with pytest.raises(PreflightError, match="There is no pool 'none'"):
        stack.run(path, dag_id="other_one")


def test_a_sound_file_has_no_findings_and_a_hash(stack, tmp_path):
    path = tmp_path / "sound.py"
    path.write_text(
        HEAD + 'with DAG("sound", schedule=None):\n    BashOperator(task_id="a", bash_command="x")\n'
    )
    answers = [stack.client.check_file(str(path)) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["findings"] == []
    assert answers[0]["dags"][0]["serialized_hash"]
