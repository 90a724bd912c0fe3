"""Callbacks of tasks and of runs, and a callback that raises an error."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, BaseNotifier, task
from airflow.sdk.exceptions import AirflowSkipException
from oracle_lib.effects import leave, run_callback, task_callback


def broken_callback(context):
    raise RuntimeError("the callback itself is broken")


class Notifier(BaseNotifier):
    """Writes a line with a rendered message."""

    template_fields = ("message",)

    def __init__(self, message):
        super().__init__()
        self.message = message

    def notify(self, context):
        leave(context, f"notified: {self.message}")


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

with DAG(
    "callbacks_that_notify",
    schedule=None,
    default_args={"on_failure_callback": Notifier("{{ ti.task_id }} failed, {{ params.who }}")},
    params={"who": "somebody"},
    on_failure_callback=[broken_callback, Notifier("{{ dag.dag_id }} failed: {{ reason }}")],
):

    @task(on_execute_callback=broken_callback, on_success_callback=Notifier("{{ ti.task_id }} is done"))
    def executes():
        return 1

    @task(
        retries=1,
        retry_delay=timedelta(seconds=0.2),
        on_retry_callback=[Notifier("again after try {{ ti.try_number }}"), broken_callback],
    )
    def retries():
        raise RuntimeError("as planned")

    @task(on_skipped_callback=[broken_callback, Notifier("{{ ti.map_index }} is skipped")])
    def skips(x):
        raise AirflowSkipException("as planned")

    executes() >> retries()
    skips.expand(x=[1, 2])
