"""Callbacks of tasks and of runs, and a callback that is broken itself."""

from __future__ import annotations

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowSkipException
from oracle_lib.effects import run_callback, task_callback


def broken_callback(context):
    raise RuntimeError("the callback itself is broken")


callbacks = {
    "on_execute_callback": task_callback("execute"),
    "on_success_callback": [task_callback("success"), task_callback("second success")],
    "on_failure_callback": task_callback("failure"),
    "on_skipped_callback": task_callback("skipped"),
    "on_retry_callback": task_callback("retry"),
}
run_callbacks = {
    "on_success_callback": run_callback("run success"),
    "on_failure_callback": [run_callback("run failure"), run_callback("second run failure")],
}

with DAG("callbacks_success", schedule=None, default_args=callbacks, **run_callbacks):

    @task
    def works():
        return 1

    @task
    def skips():
        raise AirflowSkipException("as planned")

    @task(on_success_callback=broken_callback)
    def broken():
        return "still a success"

    @task
    def mapped(x):
        return x

    works() >> skips()
    broken()
    mapped.expand(x=["a", "b"])

with DAG("callbacks_failure", schedule=None, default_args=callbacks, **run_callbacks):

    @task
    def fails():
        raise KeyError("missing")

    @task(on_failure_callback=[broken_callback, task_callback("failure after a broken one")])
    def fails_with_broken_callback():
        raise ValueError("as planned")

    @task
    def blocked():
        return "never reached"

    fails() >> blocked()
    fails_with_broken_callback()
