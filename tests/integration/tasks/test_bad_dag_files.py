"""A DAG file that can't be run gives one message with the place, and nothing is stored."""

from __future__ import annotations

import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from temporal_airflow_nb import LocalStack
from temporal_airflow_nb.errors import DagFileError, DagNotFoundError, InvalidConfError, InvalidInputError

HEAD = "from airflow.sdk import DAG, Param\nfrom airflow.providers.standard.operators.empty import EmptyOperator\n"

BAD = {
    "syntax": ("x = (\n", "line 1: '(' was never closed"),
    "import": (
        "\nimport not_there_at_all\n",
        "line 2: ModuleNotFoundError: No module named 'not_there_at_all'",
    ),
    "raises": ("def f():\n    raise ValueError('boom')\nf()\n", "line 2: ValueError: boom"),
    "exits": ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
    "ends_its_process": ("import os\nos._exit(3)\n", "ended the process that imported it, with exit code 3"),
    "crashes": (
        "import ctypes\nctypes.string_at(0)\n",
        "ended the process that imported it: SIGSEGV",
    ),
    "is_killed": (
        "import os\nos.kill(os.getpid(), 37)\n",
        "ended the process that imported it: signal 37",
    ),
    "no_dag": ("x = 1\n", "defines no DAG"),
    "null_bytes": ("x = '\0'\n", "null bytes"),
    "cycle": (
        f"{HEAD}with DAG('cycle'):\n    a, b = EmptyOperator(task_id='a'), EmptyOperator(task_id='b')\n"
        "    a >> b >> a\n",
        "there is a cycle with 'b' in it",
    ),
    "duplicate_task": (
        f"{HEAD}with DAG('duplicate_task'):\n    EmptyOperator(task_id='a')\n    EmptyOperator(task_id='a')\n",
        "Two tasks have the task_id 'a'",
    ),
    "not_serializable": (
        f"{HEAD}with DAG('not_serializable', params={{'x': object()}}):\n    EmptyOperator(task_id='a')\n",
        "must be json-serializable",
    ),
}


def stored(stack, dag_id: str) -> dict[str, int]:
    """Count what the database holds of a DAG."""
    path = Path(stack.status()["env"]["AIRFLOW_HOME"]) / "airflow.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        return {
            table: database.execute(f"SELECT count(*) FROM {table} WHERE dag_id = ?", [dag_id]).fetchone()[0]
            for table in ("dag", "dag_version", "serialized_dag", "dag_code", "dag_run")
        }


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_and_not_stored(stack, tmp_path, name):
    source, message = BAD[name]
    path = tmp_path / f"{name}.py"
    path.write_text(source)
    with pytest.raises(DagFileError) as caught:
        stack.run(path)
    assert message.lower() in str(caught.value).lower()
    assert str(path) in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not any(stored(stack, name).values())


def test_file_that_becomes_bad_leaves_the_stored_dag_alone(stack, tmp_path):
    path = tmp_path / "becomes_bad.py"
    path.write_text(f"{HEAD}with DAG('becomes_bad', schedule=None):\n    EmptyOperator(task_id='a')\n")
    assert stack.run(path).wait(timeout=60) == "success"
    before = stored(stack, "becomes_bad")
    path.write_text("import not_there_at_all\n")
    with pytest.raises(DagFileError):
        stack.run(path)
    assert stored(stack, "becomes_bad") == before


def test_a_path_that_is_not_a_python_file_is_refused(stack, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path, message in (
        (tmp_path / "missing.py", "There is no file"),
        (tmp_path, "is a folder"),
        (tmp_path / "notes.txt", "isn't a Python file"),
    ):
        with pytest.raises(DagFileError, match=message):
            stack.run(path)


def test_a_file_with_several_dags_needs_a_dag_id(stack, tmp_path):
    path = tmp_path / "several.py"
    path.write_text(
        f"{HEAD}with DAG('one', schedule=None):\n    pass\nwith DAG('two', schedule=None):\n    pass\n"
    )
    with pytest.raises(DagNotFoundError, match="defines 2 DAGs: one, two"):
        stack.run(path)
    with pytest.raises(DagNotFoundError, match="defines no DAG 'three'"):
        stack.run(path, dag_id="three")
    assert stack.run(path, dag_id="two").wait(timeout=60) == "success"


def test_invalid_params_and_run_ids_are_refused(stack, tmp_path):
    path = tmp_path / "numbered.py"
    path.write_text(
        f"{HEAD}with DAG('numbered', schedule=None, params={{'n': Param(1, type='integer')}}):\n"
        "    EmptyOperator(task_id='a')\n"
    )
    with pytest.raises(InvalidConfError, match="'x' is not of type 'integer'"):
        stack.run(path, conf={"n": "x"})
    assert stored(stack, "numbered")["dag_run"] == 0
    assert stack.run(path, conf={"n": 2}, run_id="once").wait(timeout=60) == "success"
    with pytest.raises(InvalidInputError, match="already has a run 'once'"):
        stack.run(path, run_id="once")
    with pytest.raises(InvalidInputError, match="run_id"):
        stack.run(path, run_id="../up")
    with pytest.raises(InvalidInputError, match="reserved for scheduled"):
        stack.run(path, run_id="scheduled__1")


HANGS = """
import ctypes
import signal

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
ctypes.CDLL(None).sleep(300)
"""
HANGS_IN_PYTHON = """
import re

re.match("(a+)+$", "a" * 64 + "b")
"""
FORKS = """
import os

if os.fork() == 0:
    os.setsid()
    import time
    time.sleep(300)
"""
GOOD = f"{HEAD}with DAG({{dag_id!r}}, schedule=None):\n    EmptyOperator(task_id='a')\n"


@pytest.fixture(scope="module")
def hasty_stack(tmp_path_factory):
    """A stack whose limit for the import of a file is short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", "3")
        with LocalStack(tmp_path_factory.mktemp("hasty") / "home") as stack:
            yield stack


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (HANGS, "took longer than 3 s to import, in code that Python can't interrupt"),
        (HANGS_IN_PYTHON, r"hostile.py, line 4"),
        (FORKS, "defines no DAG"),
    ],
)
def test_a_file_that_hangs_or_forks_harms_no_other_file(hasty_stack, tmp_path, source, message):
    path, other = tmp_path / "hostile.py", tmp_path / "other.py"
    path.write_text(source)
    other.write_text(GOOD.format(dag_id="other"))
    with ThreadPoolExecutor(2) as threads:
        refused = threads.submit(hasty_stack.run, path)
        assert hasty_stack.run(other).wait(timeout=60) == "success"
        with pytest.raises(DagFileError, match=message):
            refused.result()
    path.write_text(GOOD.format(dag_id="hostile"))
    assert hasty_stack.run(path).wait(timeout=60) == "success"
