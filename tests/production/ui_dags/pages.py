"""A DAG whose runs last until a file exists, and one that Airflow executes."""

import os
import time
from pathlib import Path

from airflow.sdk import DAG, task

with DAG("lasting", schedule=None):

    @task
    def lasts(dag_run=None):
        while not (Path(os.environ["TRACES"]) / dag_run.run_id).exists():
            time.sleep(0.05)

    lasts()

with DAG("native_one", schedule=None):
    task(task_id="ends")(lambda: None)()
