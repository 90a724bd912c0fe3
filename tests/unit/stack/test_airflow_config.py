from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.stack.services import airflow_config


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "ho me %s#1"
    home.mkdir()
    airflow_config.prepare(home)
    return home


def ask_airflow(home, *options):
    code = (
        "import json, sys; from airflow.configuration import conf;"
        "print(json.dumps([conf.get(*o.split('.')) for o in sys.argv[1:]]))"
    )
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(airflow_config.airflow_home(home)),
        "AIRFLOW_CONFIG": str(airflow_config.config_path(home)),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *options], env=env, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_airflow_reads_what_was_written(home, tmp_path):
    folder = tmp_path / "etl %d"
    folder.mkdir()
    name = airflow_config.register_folder(home, folder)
    url, bundles, examples, logs, key = ask_airflow(
        home,
        "database.sql_alchemy_conn",
        "dag_processor.dag_bundle_config_list",
        "core.load_examples",
        "logging.base_log_folder",
        "core.fernet_key",
    )
    assert url == f"sqlite:///{home}/airflow/airflow.db"
    assert logs == f"{home}/airflow/logs"
    assert examples == "False"
    assert len(key) == 44
    assert bundles == airflow_config.bundle_config_json(home)
    assert {b["name"]: b["kwargs"]["path"] for b in json.loads(bundles)} == {
        "notebook": str(home / "notebook"),
        name: str(folder),
    }


def test_secrets_stay_the_same_and_private(home):
    before = airflow_config.config_path(home).read_text()
    airflow_config.prepare(home)
    assert airflow_config.config_path(home).read_text() == before
    assert airflow_config.config_path(home).stat().st_mode & 0o077 == 0


def test_a_folder_has_one_readable_name(home, tmp_path):
    folder = tmp_path / "My ETL!"
    folder.mkdir()
    name = airflow_config.register_folder(home, folder)
    assert name.startswith("my-etl-")
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert airflow_config.register_folder(home, link) == name
    assert airflow_config.register_folder(home, f"{folder}/") == name
    assert airflow_config.bundle_path(home, name) == folder


def test_folders_of_one_name_have_different_bundles(home, tmp_path):
    folders = [tmp_path / str(n) / "dags" for n in range(2)]
    for folder in folders:
        folder.mkdir(parents=True)
    first, second = (airflow_config.register_folder(home, folder) for folder in folders)
    assert first != second


def test_the_notebook_folder_is_a_bundle_of_its_own(home):
    assert airflow_config.register_folder(home, home / "notebook") == "notebook"
    assert airflow_config.bundle_path(home, "notebook") == home / "notebook"


def test_folders_registered_at_the_same_time_are_all_kept(home, tmp_path):
    folders = [tmp_path / f"dags{n}" for n in range(20)]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda folder: airflow_config.register_folder(home, folder), folders * 2))
    assert names[:20] == names[20:]
    assert len(json.loads(airflow_config.bundle_config_json(home))) == 21


@pytest.mark.parametrize("make", [Path.touch, lambda path: None])
def test_a_path_that_is_not_a_folder_is_refused(home, tmp_path, make):
    path = tmp_path / "dag.py"
    make(path)
    with pytest.raises(InvalidInputError, match="is not a folder"):
        airflow_config.register_folder(home, path)


def test_an_unknown_bundle_is_refused(home):
    with pytest.raises(InvalidInputError, match="no DAG bundle 'x'"):
        airflow_config.bundle_path(home, "x")


def test_variables_that_conflict_with_the_stack_are_dropped():
    environ = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://prod",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": "cat secret",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_SCHEMA": "prod",
        "AIRFLOW__CORE__FERNET_KEY_SECRET": "vault",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": "[]",
        "AIRFLOW__CORE__XCOM_BACKEND": "mine.Backend",
        "AIRFLOW_CONN_DB": "sqlite://",
        "PATH": "/bin",
    }
    assert set(airflow_config.drop_conflicting_variables(environ)) == {
        "AIRFLOW__CORE__XCOM_BACKEND",
        "AIRFLOW_CONN_DB",
        "PATH",
    }


@pytest.mark.parametrize(
    "module",
    [
        "temporal_airflow_nb",
        "temporal_airflow_nb.stack.local",
        "temporal_airflow_nb.stack.manager.manager",
        "temporal_airflow_nb.cli.main",
    ],
)
def test_neither_airflow_nor_temporal_is_imported(module):
    heavy = {"airflow", "temporalio", "pandas", "rich", "IPython"}
    code = f"import sys, {module}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_only_folders_that_the_user_names_are_watched(home, tmp_path):
    for name in ("dags/below", "project"):
        (tmp_path / name).mkdir(parents=True)
    airflow_config.register_folder(home, tmp_path / "project")
    assert airflow_config.watched_bundles(home) == ["notebook"]
    dags = airflow_config.watch_folder(home, tmp_path / "dags")
    assert airflow_config.watch_folder(home, tmp_path / "dags") == dags
    assert airflow_config.watched_bundles(home) == ["notebook", dags]
    assert airflow_config.register_folder(home, tmp_path / "dags" / "below") == dags
    project = airflow_config.watch_folder(home, tmp_path / "project")
    assert airflow_config.watched_bundles(home) == ["notebook", dags, project]
    assert airflow_config.watch_folder(home, home / "notebook") == "notebook"
    assert airflow_config.watched_bundles(home) == ["notebook", dags, project]
