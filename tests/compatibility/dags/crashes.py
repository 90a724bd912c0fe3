"""Task processes that end without reporting a state."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

from airflow.sdk import DAG, task
from oracle_lib.effects import leave, run_callback, task_callback

callbacks = {
    "on_retry_callback": task_callback("retry"),
    "on_failure_callback": task_callback("failure"),
    "on_success_callback": task_callback("success"),
    "retry_delay": timedelta(seconds=0.5),
}
run_callbacks = {
    "on_success_callback": run_callback("run success"),
    "on_failure_callback": run_callback("run failure"),
}


def exit_at_once():
    os._exit(3)


def kill_myself():
    os.kill(os.getpid(), signal.SIGKILL)


for name, end in {"exit": exit_at_once, "kill": kill_myself}.items():
    with DAG(f"crash_{name}", schedule=None, default_args=callbacks, **run_callbacks):

        @task
        def crash(end, ti=None, **context):
            ti.xcom_push(key="before", value="pushed")
            leave(context, f"ran try={ti.try_number}")
            end()

        @task
        def after():
            return "never reached"

        crash(end) >> after()

    with DAG(f"crash_{name}_then_success", schedule=None, default_args=callbacks, **run_callbacks):

        @task(retries=1)
        def crash_once(end, ti=None, **context):
            leave(context, f"ran try={ti.try_number}")
            if ti.try_number == 1:
                end()
            return ti.try_number

        crash_once(end)

    with DAG(f"crash_{name}_every_time", schedule=None, default_args=callbacks, **run_callbacks):

        @task(retries=1)
        def crash_always(end, ti=None, **context):
            leave(context, f"ran try={ti.try_number}")
            end()

        crash_always(end)
