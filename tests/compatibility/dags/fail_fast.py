"""Runs in which the first failure ends all other tasks."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, setup, task, teardown
from oracle_lib.effects import leave, lines, run_callback, task_callback

callbacks = {
    "on_retry_callback": task_callback("retry"),
    "on_failure_callback": task_callback("failure"),
    "on_skipped_callback": task_callback("skipped"),
    "on_success_callback": task_callback("success"),
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

    def on_kill(self):
        with Path(self.mark).open("a") as file:
            file.write(f"{self.task_id} killed\n")


class Defers(BaseOperator):
    """Waits for a slow trigger."""

    def execute(self, context):
        leave(context, f"{self.task_id} runs")
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=90)), method_name="resumed")

    def resumed(self, context, event=None):
        leave(context, "resumed in spite of the failure")


def fail_when_others_are_there(context, others):
    while len(lines(context)) < others:
        time.sleep(0.1)
    # A task that has written its line may not be recorded as deferred or waiting yet.
    time.sleep(2)
    raise RuntimeError("as planned")


with DAG("fail_fast", schedule=None, fail_fast=True, default_args=callbacks, **run_callbacks):

    @task
    def done(**context):
        leave(context, "done runs")

    @task(retries=1, retry_delay=timedelta(hours=1))
    def waits_for_its_retry(**context):
        leave(context, "waits_for_its_retry runs")
        raise ValueError("first try")

    @task.sensor(mode="reschedule", poke_interval=3600)
    def waits_for_its_poke(**context):
        leave(context, "waits_for_its_poke runs")
        return False

    @task
    def fails(**context):
        # Five lines of the other tasks, and the lines of two callbacks.
        fail_when_others_are_there(context, 7)

    @task
    def mapped(x):
        return x

    done()
    waits_for_its_retry() >> mapped.expand(x=[1, 2])
    waits_for_its_poke() >> EmptyOperator(task_id="never")
    Sleeps(task_id="runs")
    Defers(task_id="defers")
    fails() >> EmptyOperator(task_id="after")


with DAG("fail_fast_teardown", schedule=None, fail_fast=True, default_args=callbacks, **run_callbacks):

    @setup
    def make(**context):
        leave(context, "make")

    @teardown
    def drop(**context):
        leave(context, "drop")

    @task
    def first():
        raise RuntimeError("as planned")

    @task
    def second():
        return "never reached"

    made = make()
    made >> first() >> second() >> drop().as_teardown(setups=made)


with DAG("fail_fast_mapped", schedule=None, fail_fast=True, default_args=callbacks, **run_callbacks):

    @task
    def some(x, **context):
        if x == 1:
            raise RuntimeError("as planned")
        time.sleep(5)
        leave(context, f"{x} went on")

    @task
    def last():
        return "never reached"

    some.expand(x=[0, 1, 2]) >> last()


with DAG("fail_fast_after_retries", schedule=None, fail_fast=True, default_args=callbacks, **run_callbacks):

    @task(retries=1, retry_delay=timedelta(seconds=0.5))
    def fails_twice(**context):
        while "runs runs" not in lines(context):
            time.sleep(0.1)
        raise RuntimeError("as planned")

    fails_twice() >> EmptyOperator(task_id="after")
    Sleeps(task_id="runs")
