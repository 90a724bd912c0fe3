"""A pandas DataFrame as an XCom."""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG("xcom_pandas", schedule=None):

    @task
    def push_frame():
        import pandas as pd

        return pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})

    @task
    def read(received):
        return [type(received).__name__, received.to_dict("records")]

    read(push_frame())
