"""Runs that exceed their timeout."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, setup, task, teardown
from oracle_lib.effects import leave, run_callback, task_callback

callbacks = {
    "on_retry_callback": task_callback("retry"),
    "on_failure_callback": task_callback("failure"),
    "on_skipped_callback": task_callback("skipped"),
}
run_callbacks = {
    "on_success_callback": run_callback("run success"),
    "on_failure_callback": run_callback("run failure"),
}


class Sleeps(BaseOperator):
    """Runs until it is killed."""

    def execute(self, context):
        self.mark = context["dag_run"].conf["effects"]
        leave(context, f"{self.task_id} runs")
        time.sleep(90)
        leave(context, f"{self.task_id} outlives its run")

    def on_kill(self):
        with Path(self.mark).open("a") as file:
            file.write(f"{self.task_id} killed\n")


class Defers(BaseOperator):
    """Waits for a slow trigger."""

    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=90)), method_name="resumed")

    def resumed(self, context, event=None):
        leave(context, "resumed in spite of the timeout")


with DAG(
    "run_times_out",
    schedule=None,
    dagrun_timeout=timedelta(seconds=20),
    default_args=callbacks,
    **run_callbacks,
):

    @task
    def done():
        return "in time"

    @task(retries=1, retry_delay=timedelta(hours=1))
    def waits_for_its_retry():
        raise ValueError("first try")

    @task.sensor(mode="reschedule", poke_interval=3600)
    def waits_for_its_poke():
        return False

    @task(pool="oracle_no_slot")
    def waits_for_a_slot():
        return "never reached"

    done() >> Sleeps(task_id="runs") >> EmptyOperator(task_id="never")
    waits_for_its_retry()
    waits_for_its_poke()
    waits_for_a_slot()
    Defers(task_id="defers")


with DAG(
    "run_times_out_before_its_teardown",
    schedule=None,
    dagrun_timeout=timedelta(seconds=12),
    **run_callbacks,
):

    @setup
    def make():
        return "made"

    @teardown
    def drop(**context):
        leave(context, "dropped in spite of the timeout")

    made = make()
    made >> Sleeps(task_id="runs") >> drop().as_teardown(setups=made)


with DAG("run_ends_in_time", schedule=None, dagrun_timeout=timedelta(minutes=5), **run_callbacks):

    @task
    def quick():
        return "in time"

    quick()
