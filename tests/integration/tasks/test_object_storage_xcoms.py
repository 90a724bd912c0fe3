"""Airflow's object storage backend keeps large XComs outside the database."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import textwrap
from pathlib import Path

import pytest

DAG = """
    from airflow.sdk import DAG, task

    with DAG("in_storage", schedule=None):

        @task(retries=1, retry_delay=0)
        def large(ti=None):
            ti.xcom_push(key="pushed", value=["try", ti.try_number] * 100)
            if ti.try_number == 1:
                raise ValueError("once")
            return {"rows": list(range(500))}

        @task
        def small():
            return "small"

        @task
        def numbers():
            return list(range(200))[:3] + ["x" * 1000]

        @task
        def each(x):
            return [x] * 300

        @task
        def use(rows, small, mapped, ti=None):
            return {
                "sum": sum(rows["rows"]),
                "small": small,
                "length": len(mapped),
                "item": mapped[1][:2],
                "slice": [value[0] for value in mapped[1:3]],
                "last": mapped[-1][0][:3],
                "all": len(list(mapped)),
                "pushed": ti.xcom_pull("large", key="pushed")[:2],
                "pulled": [len(v) for v in ti.xcom_pull("each", map_indexes=[0, 2])],
            }

        use(large(), small(), each.expand(x=numbers()))
"""


@pytest.fixture
def storage(tmp_path):
    return tmp_path / "storage"


@pytest.fixture
def storage_stack(tmp_path, storage, monkeypatch):
    from temporal_airflow_nb import LocalStack

    monkeypatch.setenv(
        "AIRFLOW__CORE__XCOM_BACKEND", "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"
    )
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", f"file://{storage}")
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD", "600")
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_COMPRESSION", "gzip")
    with LocalStack(tmp_path / "home") as stack:
        yield stack


def stored(stack):
    """Return what the database holds, by task, map index and key."""
    path = Path(stack.status()["env"]["AIRFLOW_HOME"]) / "airflow.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        rows = database.execute("SELECT task_id, map_index, key, value FROM xcom").fetchall()
    return {(task_id, index, key): json.loads(value) for task_id, index, key, value in rows}


def test_large_values_are_stored_only_in_the_storage(storage_stack, storage, tmp_path):
    path = tmp_path / "in_storage.py"
    path.write_text(textwrap.dedent(DAG))
    run = storage_stack.run(path)
    assert run.wait(timeout=90) == "success"
    in_database = stored(storage_stack)
    assert in_database["small", -1, "return_value"] == "small"
    outside = {key for key, value in in_database.items() if str(value).startswith(f"file://{storage}")}
    assert outside == {
        ("large", -1, "return_value"),
        ("large", -1, "pushed"),
        ("numbers", -1, "return_value"),
        *(("each", index, "return_value") for index in range(4)),
    }
    # What the first try pushed was deleted, in the storage too, before the second began.
    files = {str(file) for file in storage.rglob("*") if file.is_file()}
    assert files == {str(in_database[key]).removeprefix("file://") for key in outside}
    assert all(file.endswith(".gz") for file in files)
    shown = {(row.task_id, row.map_index, row.key): row.value for row in run.xcoms.itertuples()}
    assert shown["large", -1, "return_value"] == {"rows": list(range(500))}
    assert shown["use", -1, "return_value"] == {
        "sum": 124750,
        "small": "small",
        "length": 4,
        "item": [1, 1],
        "slice": [1, 2],
        "last": "xxx",
        "all": 4,
        "pushed": ["try", 2],
        "pulled": [300, 300],
    }
