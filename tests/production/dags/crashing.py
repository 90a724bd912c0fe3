"""DAGs that run while processes are killed."""

from __future__ import annotations

import time

from _tracing import gated, trace, traced
from airflow.sdk import DAG, task


def step(name: str):
    @task(task_id=name)
    def takes_a_while():
        trace()
        time.sleep(0.5)

    return takes_a_while()


with DAG("steps", schedule=None, max_active_runs=50):
    step("one") >> [step("two"), step("three")] >> step("four")

with DAG("held", schedule=None):
    traced("before") >> gated("waits") >> traced("after")
