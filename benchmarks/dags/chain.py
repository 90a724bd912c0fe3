"""A chain of twenty tasks."""

from __future__ import annotations

from airflow.sdk import DAG, chain, task

with DAG("bench_chain", schedule=None):

    @task
    def step(number):
        return number

    chain(*[step.override(task_id=f"step_{number:02}")(number) for number in range(20)])
