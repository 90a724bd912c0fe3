"""Many short tasks, for histories that grow long."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import dag, task


@dag(schedule=None, max_active_tasks=4)
def waves():
    @task
    def numbers():
        return list(range(12))

    @task
    def square(number: int) -> int:
        return number * number

    @task
    def total(squares) -> int:
        return sum(squares)

    total(square.expand(number=numbers())) >> EmptyOperator(task_id="end")


waves()
