from __future__ import annotations

import ast

import pytest

from temporal_airflow_nb.cells import prepare
from temporal_airflow_nb.errors import DagFileError, DagNotFoundError, InvalidConfError, InvalidInputError

GOOD = prepare.make_source("from airflow.sdk import dag\n", 1)

THREE_LINES = prepare.make_source("1\n2\nx\n", 1)


@pytest.mark.parametrize(
    ("source", "ids"),
    [
        ("@dag\ndef etl(): ...\netl()", ["etl"]),
        ("@dag(schedule=None)\ndef etl(): ...", ["etl"]),
        ("@dag(dag_id='named')\ndef etl(): ...", ["named"]),
        ("@dag('named')\nasync def etl(): ...", ["named"]),
        ("from airflow.sdk import dag as workflow\n@workflow()\ndef etl(): ...", ["etl"]),
        ("@sdk.dag(schedule=None)\ndef etl(): ...", ["etl"]),
        ("with DAG('a') as d: ...", ["a"]),
        ("with DAG(dag_id='a', schedule=None): ...\nwith airflow.DAG('b'): ...", ["a", "b"]),
        ("d = DAG('a')\nDAG('b')", ["a", "b"]),
        ("def make():\n    return DAG('a')\nmake()", []),
        ("for i in range(3):\n    DAG(f'a{i}')", []),
        ("@task\ndef dag(): ...\nDAGGER('x')", []),
    ],
)
def test_dags_are_found_without_running_the_cell(source, ids):
    assert prepare.find_dag_ids(ast.parse(source)) == ids


@pytest.mark.parametrize(
    ("source", "name", "file"),
    [
        ("@dag\ndef etl(): ...", None, "etl.py"),
        ("DAG('a.b-c')", None, "a.b-c.py"),
        ("DAG('../../etc/x')", None, "_.._etc_x.py"),
        ("DAG('größe')", None, "größe.py"),
        ("x = 1", None, "cell_7.py"),
        ("DAG('a')", "mine", "mine.py"),
        ("DAG('a')", "mine.py", "mine.py"),
    ],
)
def test_the_file_is_named_after_the_option_the_dag_or_the_cell(source, name, file):
    assert prepare.choose_file_name(ast.parse(source), name, 7) == file


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", ".py"])
def test_an_invalid_file_name_is_refused(name):
    with pytest.raises(InvalidInputError):
        prepare.choose_file_name(ast.parse(""), name, 1)


def test_lines_of_the_file_are_lines_of_the_cell():
    assert prepare.make_source("a = 1\nb = 2\n", 1).splitlines()[1:] == ["a = 1", "b = 2"]
    with pytest.raises(DagFileError, match=r"cell line 3: .*\n    b = = 2\n") as caught:
        prepare.parse(prepare.make_source("a = 1\nb = = 2\n", 1))
    assert caught.value.facts["line"] == 3


def test_a_null_character_is_refused():
    with pytest.raises(DagFileError):
        prepare.parse(prepare.make_source("a = '\0'", 1))


def test_a_cell_is_written_to_the_bundle(tmp_path):
    with prepare.stored_file(tmp_path, "etl.py", GOOD) as path:
        assert path == tmp_path / "notebook" / "etl.py"
        assert path.read_text() == GOOD
    assert [entry.name for entry in path.parent.iterdir()] == ["etl.py"]


def failing(tmp_path, error, source=THREE_LINES):
    with pytest.raises(type(error)) as caught, prepare.stored_file(tmp_path, "etl.py", source):
        raise error
    return str(caught.value)


def test_a_refused_cell_leaves_no_file(tmp_path):
    path = tmp_path / "notebook" / "etl.py"
    said = failing(tmp_path, DagFileError(f"{path}, line 4: NameError: name 'x' is not defined", line=4))
    assert said == "cell line 4: NameError: name 'x' is not defined"
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("error", [DagFileError("broken"), DagNotFoundError("none"), InvalidConfError("no")])
def test_the_former_file_is_restored_after_an_error(tmp_path, error):
    with prepare.stored_file(tmp_path, "etl.py", GOOD) as path:
        pass
    failing(tmp_path, error)
    assert path.read_text() == GOOD
    assert [entry.name for entry in path.parent.iterdir()] == ["etl.py"]


def test_a_valid_file_stays_after_another_error(tmp_path):
    failing(tmp_path, InvalidInputError("no such date"), GOOD)
    assert (tmp_path / "notebook" / "etl.py").read_text() == GOOD


def test_an_unchanged_cell_does_not_touch_its_file(tmp_path):
    with prepare.stored_file(tmp_path, "etl.py", GOOD) as path:
        before = path.stat()
    with prepare.stored_file(tmp_path, "etl.py", GOOD):
        after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize(
    ("body", "line", "said", "hint"),
    [
        ("x = 1\n!pip install x", 3, "`!pip install x` is a notebook command", "another cell"),
        ("files = !ls", 2, "`files = !ls` is a notebook command", "another cell"),
        ("%time x = 1", 2, "`%time x = 1` is a notebook command", "another cell"),
        ("def f():\n    return 1\nf?", 4, "`f?` is a notebook command", "another cell"),
        ("import asyncio\nawait asyncio.sleep(1)", 3, "'await' outside function", "`async def`"),
        ("async with x: pass", 2, "outside async function", "`async def`"),
        ("return 1", 2, "'return' outside function", ""),
    ],
)
def test_syntax_that_only_a_notebook_can_execute_is_refused(body, line, said, hint):
    with pytest.raises(DagFileError) as caught:
        prepare.parse(prepare.make_source(body, 1))
    assert caught.value.message.startswith(f"cell line {line}: ")
    assert said in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.facts["line"] == line


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("for i in range(3):\n    DAG(f'a_{i}')", "a_i.py"),
        ("def make():\n    return DAG(dag_id='b')\nmake()", "b.py"),
        ("with DAG(NAME): ...", "NAME.py"),
        ("from shop import make_dag\nmake_dag('a', n=1)", "make_dag_a_n_1.py"),
        ("d = etl()", "etl.py"),
    ],
)
def test_a_file_with_computed_ids_keeps_its_name(source, file):
    assert (
        prepare.choose_file_name(ast.parse(source), None, 1)
        == prepare.choose_file_name(ast.parse(source), None, 2)
        == file
    )


def test_errors_in_code_of_other_cells_name_those_cells(tmp_path):
    path = tmp_path / "etl.py"
    source = "# header\nimport csv\n\n# %% In [3], line 5\ndef f(): 1 / 0\n\n# %% In [7], line 2\nf()\n"
    error = DagFileError(f"{path}, line 5: ZeroDivisionError", path=str(path), line=5)
    assert str(prepare.locate_in_cell(error, path, source)) == "In [3], line 5: ZeroDivisionError"
    assert prepare.locate_in_cell(error, path, source).facts["line"] is None
    own = DagFileError(f"{path}, line 8: NameError", path=str(path), line=8)
    assert str(prepare.locate_in_cell(own, path, source)) == "cell line 2: NameError"
    assert prepare.locate_in_cell(own, path, source).facts["line"] == 2
    generated = DagFileError(f"{path}, line 2: ImportError", path=str(path), line=2)
    assert str(prepare.locate_in_cell(generated, path, source)) == "line 2 of the cell's file: ImportError"
