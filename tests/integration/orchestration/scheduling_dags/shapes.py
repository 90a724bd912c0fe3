"""DAGs of all shapes that the task graph distinguishes."""

from __future__ import annotations

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, setup, task, task_group, teardown


def operator(task_id: str, **options) -> PythonOperator:
    return PythonOperator(task_id=task_id, python_callable=print, **options)


with DAG("edges", schedule=None):
    a, b, c = operator("a"), operator("b"), operator("c")
    a >> b >> c
    a >> c
    [b, c] >> operator("any", trigger_rule="one_success")

with DAG("staged", schedule=None):

    @setup
    def make():
        pass

    @teardown
    def drop():
        pass

    one, two = operator("one"), operator("two")
    made = make()
    made >> one >> two >> drop().as_teardown(setups=made)

with DAG("remembers", schedule=None):
    operator("back", depends_on_past=True) >> operator("whole", wait_for_downstream=True) >> operator("below")

with DAG("mapped", schedule=None):

    @task
    def numbers():
        return [1, 2]

    @task
    def square(number):
        return number * number

    @task
    def total(squares):
        return sum(squares)

    total(square.expand(number=numbers()))

with DAG("mapped_group", schedule=None):

    @task
    def names():
        return ["x", "y"]

    @task_group
    def copy(name):
        @task
        def read(name):
            return name

        @task
        def write(text):
            return text

        return write(read(name))

    copy.expand(name=names()) >> operator("done")

for size in (20, 200):
    with DAG(f"fan_out_{size}", schedule=None, max_active_tasks=16):
        operator("first") >> [operator(f"task_{index}") for index in range(size)] >> operator("last")
