"""A DAG to try the services with."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None)
def hello():
    @task
    def names():
        return ["Temporal", "Airflow"]

    @task
    def greet(name):
        print(f"Hello, {name}")

    greet.expand(name=names())


hello()
