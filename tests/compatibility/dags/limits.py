"""Priorities and limits of parallel tasks."""

from __future__ import annotations

import time

from airflow.sdk import DAG, task
from oracle_lib.effects import leave


def work(context, name):
    leave(context, f"start {name}")
    time.sleep(0.2)
    leave(context, f"end {name}")


with DAG("priority_in_a_pool_of_one", schedule=None):
    for weight in (2, 9, 1, 5):

        @task(
            task_id=f"weight_{weight}",
            priority_weight=weight,
            weight_rule="absolute",
            pool="oracle_one_slot",
        )
        def weighted(ti=None, **context):
            work(context, ti.task_id)

        weighted()

with DAG("one_instance_at_a_time", schedule=None):

    @task(max_active_tis_per_dag=1)
    def instance(x, ti=None, **context):
        work(context, ti.map_index)

    instance.expand(x=[1, 2, 3])

with DAG("one_task_at_a_time", schedule=None, max_active_tasks=1):
    for letter, weight in {"a": 1, "b": 3, "c": 2}.items():

        @task(task_id=letter, priority_weight=weight, weight_rule="absolute")
        def lettered(ti=None, **context):
            work(context, ti.task_id)

        lettered()
