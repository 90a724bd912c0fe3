"""Ten tasks in layers; the benchmark starts ten runs at once."""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG("bench_many_runs", schedule=None, max_active_runs=10, max_active_tasks=64):

    @task
    def extract(number):
        return number

    @task
    def transform(number):
        return number * 2

    @task
    def load(numbers):
        return sum(numbers)

    @task
    def report(total):
        return f"total {total}"

    extracted = [extract.override(task_id=f"extract_{number}")(number) for number in range(4)]
    transformed = [
        transform.override(task_id=f"transform_{number}")(value) for number, value in enumerate(extracted)
    ]
    report(load(transformed))
