"""XComs with numpy values."""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG("xcom_numpy", schedule=None):

    @task
    def push_scalar():
        import numpy as np

        return np.float64(1.5)

    @task
    def push_array():
        import numpy as np

        return np.arange(6).reshape(2, 3)

    @task
    def read(received):
        return [type(received).__name__, repr(received)]

    read.override(task_id="read_scalar")(push_scalar())
    read.override(task_id="read_array")(push_array())
