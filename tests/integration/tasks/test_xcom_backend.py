"""A custom XCom backend of a user stores and reads values."""

from __future__ import annotations

BACKEND = '''
import json, os, uuid
from airflow.sdk.bases.xcom import BaseXCom


class FileXCom(BaseXCom):
    """Keeps values in files, and their names in the database."""

    @staticmethod
    def serialize_value(value, **_):
        path = os.path.join(os.environ["XCOM_FOLDER"], uuid.uuid4().hex)
        with open(path, "w") as file:
            json.dump(value, file)
        return BaseXCom.serialize_value(path)

    @staticmethod
    def deserialize_value(result):
        with open(BaseXCom.deserialize_value(result)) as file:
            return json.load(file)
'''

DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def kept_in_files():
    @task
    def give():
        return {"number": 7}

    @task
    def take(given):
        return given["number"] + 1

    take(give())

kept_in_files()
"""


def test_the_backend_writes_and_reads_values(tmp_path, monkeypatch):
    from temporal_airflow_nb import LocalStack

    (tmp_path / "file_xcom.py").write_text(BACKEND)
    (tmp_path / "kept_in_files.py").write_text(DAG)
    folder = tmp_path / "values"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("XCOM_FOLDER", str(folder))
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "file_xcom.FileXCom")
    with LocalStack(tmp_path / "home") as stack:
        run = stack.run(tmp_path / "kept_in_files.py")
        assert run.wait(timeout=60) == "success"
        values = run.xcoms.set_index("task_id")["value"]
        assert values["give"] == {"number": 7}
        assert values["take"] == 8
    assert len(list(folder.iterdir())) == 2
