"""Tasks that exceed their timeout."""

from __future__ import annotations

import time
from datetime import timedelta

from airflow.sdk import DAG, task
from oracle_lib.effects import task_callback

callbacks = {
    "on_retry_callback": task_callback("retry"),
    "on_failure_callback": task_callback("failure"),
    "on_success_callback": task_callback("success"),
    "retry_delay": timedelta(seconds=0.5),
}

with DAG("execution_timeout", schedule=None, default_args=callbacks):

    @task(execution_timeout=timedelta(seconds=1))
    def too_slow():
        time.sleep(60)

    @task(execution_timeout=timedelta(seconds=1), retries=1)
    def slow_once(ti=None):
        if ti.try_number == 1:
            time.sleep(60)
        return ti.try_number

    @task(execution_timeout=timedelta(seconds=30))
    def in_time():
        return "in time"

    too_slow()
    slow_once() >> in_time()
