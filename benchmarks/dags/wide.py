"""A chain of twenty mapped tasks, whose instances the benchmark of frames multiplies."""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG("wide", schedule=None):

    @task
    def step(number):
        return number

    before = None
    for number in range(20):
        mapped = step.override(task_id=f"step_{number:02d}").expand(number=[number])
        if before is not None:
            before >> mapped
        before = mapped
