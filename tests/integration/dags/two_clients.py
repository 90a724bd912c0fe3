"""Nested groups, mapped tasks, a retry, a skip, a failure; a task that waits for ``go`` in the conf's folder."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

with DAG("two_doors", schedule=None, doc_md="Only the database has this."):

    @task(doc_md="Nor this.")
    def sizes():
        return [1, 2]

    @task(retries=2, retry_delay=timedelta(milliseconds=50), map_index_template="{{ size }}")
    def cut(size):
        context = get_current_context()
        context["size"] = f"size {size}"
        if size == 2 and context["ti"].try_number == 1:
            raise RuntimeError("blunt")
        return size

    @task_group
    def sew(cuts):
        @task
        def baste(cuts):
            return len(cuts)

        @task_group
        def finish(pieces):
            @task
            def hem(pieces):
                raise AirflowSkipException("no thread")

            @task
            def iron():
                pass

            hem(pieces) >> iron()

        finish(baste(cuts))

    @task
    def wait():
        folder = Path(get_current_context()["dag_run"].conf["folder"])
        while not (folder / "go").exists():
            time.sleep(0.05)

    @task
    def sell():
        raise ValueError("nobody buys")

    sew(cut.expand(size=sizes()))
    wait() >> sell() >> EmptyOperator(task_id="count")
