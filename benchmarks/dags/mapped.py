"""A task mapped over fifty items of another task, and a task that adds up the results."""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG("bench_mapped", schedule=None, max_active_tasks=64):

    @task
    def numbers():
        return list(range(50))

    @task
    def square(number):
        return number * number

    @task
    def total(squares):
        return sum(squares)

    total(square.expand(number=numbers()))
