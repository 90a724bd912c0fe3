"""Minimal DAGs."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task
from oracle_lib.effects import run_callback

with DAG("one_task", schedule=None):

    @task
    def only():
        return "done"

    only()

with DAG("one_failed_task", schedule=None):

    @task
    def only_failure():
        raise ValueError("as planned")

    only_failure()

with DAG("only_empty_operators", schedule=None, on_success_callback=run_callback("run success")):
    first = EmptyOperator(task_id="first")
    last = EmptyOperator(task_id="last")
    first >> [EmptyOperator(task_id=f"middle_{i}") for i in range(3)] >> last

with DAG("dots.and-dashes_ünï", schedule=None):

    @task(task_id="a.b-c_d")
    def dotted():
        return "done"

    dotted()
