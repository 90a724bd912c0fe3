"""DAGs that a test deletes while one of their runs waits."""

from __future__ import annotations

from datetime import timedelta

from _tracing import trace
from airflow.sdk import DAG, task


@task(retries=1, retry_delay=timedelta(hours=1))
def fails():
    trace()
    raise RuntimeError("to be tried again in an hour")


for dag_id in ("doomed", "native_doomed"):
    with DAG(dag_id, schedule=None):
        fails()
