"""A production worker for a configured Airflow with a versioned bundle."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import temporal_airflow_nb as ta
from tests.support.stack_helpers import lines, states, until, worker

BUNDLES = Path(__file__).parent / "bundles"

FIRST = """
    import time
    from pathlib import Path
    from airflow.sdk import DAG, task

    VERSION = "first"

    with DAG("versioned", schedule=None):
        @task
        def begins(params=None, **context):
            trace = Path(context["dag_run"].conf["trace"])
            with trace.open("a") as file:
                file.write(f"begun {VERSION}\\n")
            while not trace.with_name("go").exists():
                time.sleep(0.05)

        @task
        def ends():
            import beside

            return [VERSION, beside.VERSION]

        begins() >> ends()
"""
SECOND = FIRST.replace('"first"', '"second"').replace(
    "begins() >> ends()", 'begins() >> ends() >> task(task_id="added")(lambda: VERSION)()'
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return the folder of a bundle with two versions."""
    root = tmp_path_factory.mktemp("bundle")
    for name, source in {"first": FIRST, "second": SECOND}.items():
        (root / name).mkdir()
        (root / name / "versioned.py").write_text(textwrap.dedent(source))
        (root / name / "beside.py").write_text(f"VERSION = {name!r}")
    return root


@pytest.fixture(scope="module")
def cluster(stack, root, tmp_path_factory):
    """Start a worker and a gateway for an Airflow configured as in production, with the stack's Temporal."""
    home = tmp_path_factory.mktemp("configured")
    temporal = {key: stack.status()["env"][key] for key in ("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE")}
    bundle = {"name": "versions", "classpath": "folder_bundle.FolderBundle", "kwargs": {"root": str(root)}}
    configured = {
        **temporal,
        "TEMPORAL_TASK_QUEUE": "bundles",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "PYTHONPATH": os.pathsep.join([str(BUNDLES), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    environment = {**os.environ, **configured}
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], env=environment, check=True, capture_output=True
    )
    with worker(configured, home / "worker.log"), pytest.MonkeyPatch.context() as patch:
        for name, value in configured.items():
            patch.setenv(name, value)
        with ta.connect() as connected:
            yield connected


def returned(run, task_id):
    xcoms = run.xcoms
    return xcoms.loc[xcoms["task_id"] == task_id, "value"].iloc[0]


def test_a_run_keeps_the_version_that_it_started_with(cluster, root, tmp_path):
    trace = tmp_path / "trace"
    runs = {}
    for version in ("first", "second"):
        (root / "current").write_text(version)
        runs[version] = cluster.run(root / version / "versioned.py", conf={"trace": str(trace)})
        until(lambda version=version: lines(trace, f"begun {version}"), f"the {version} run's first task")
    (tmp_path / "go").touch()
    for version, run in runs.items():
        assert run.wait(timeout=60) == "success"
        assert returned(run, "ends") == [version, version]
    assert states(runs["first"]) == {"begins": "success", "ends": "success"}
    assert states(runs["second"]) == {"begins": "success", "ends": "success", "added": "success"}


def test_a_version_is_stored_with_the_data_of_its_bundle(cluster, root, tmp_path):
    (root / "current").write_text("second")
    (tmp_path / "go").touch()
    run = cluster.run(root / "second" / "versioned.py", conf={"trace": str(tmp_path / "trace")})
    assert run.wait(timeout=60) == "success"
    database = Path(cluster.status()["env"]["AIRFLOW_HOME"]) / "airflow.db"
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (version,) = connection.execute(
            "SELECT bundle_version FROM dag_run WHERE run_id = ?", (run.run_id,)
        ).fetchone()
        (data,) = connection.execute(
            "SELECT version_data FROM dag_version WHERE bundle_version = ?", (version,)
        ).fetchone()
    assert version == "second"
    assert json.loads(data) == {"folder": str(root / "second")}
