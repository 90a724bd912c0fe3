"""Fifty parallel tasks, and a task that joins them."""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG("bench_fan_out", schedule=None, max_active_tasks=64):

    @task
    def start():
        return 0

    @task
    def branch(number):
        return number

    @task
    def join():
        return "done"

    start() >> [branch.override(task_id=f"branch_{number:02}")(number) for number in range(50)] >> join()
