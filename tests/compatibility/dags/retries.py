"""Tasks that fail: temporarily, finally, and without a retry."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException
from oracle_lib.effects import task_callback

callbacks = {
    "on_retry_callback": task_callback("retry"),
    "on_failure_callback": task_callback("failure"),
    "on_success_callback": task_callback("success"),
}

with DAG("retry_then_success", schedule=None, default_args=callbacks):

    @task(retries=2, retry_delay=timedelta(seconds=1))
    def flaky(ti=None):
        ti.xcom_push(key=f"from_try_{ti.try_number}", value=ti.try_number)
        if ti.try_number == 1:
            raise ValueError("not yet")
        return {"try_number": ti.try_number, "max_tries": ti.max_tries}

    @task
    def after(result):
        return result["try_number"]

    after(flaky())


with DAG("retry_exhausted", schedule=None, default_args=callbacks):

    @task(retries=2, retry_delay=timedelta(seconds=0.2))
    def never(ti=None):
        ti.xcom_push(key="last_try", value=ti.try_number)
        raise RuntimeError(f"try {ti.try_number}")

    @task
    def blocked():
        return "never reached"

    @task(trigger_rule="all_failed")
    def clean_up():
        return "cleaned up"

    never() >> [blocked(), clean_up()]


with DAG("retry_refused", schedule=None, default_args=callbacks):

    @task(retries=5)
    def fatal():
        raise AirflowFailException("no use in trying again")

    fatal()
