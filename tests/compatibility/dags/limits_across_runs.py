"""Runs that wait for each other."""

from __future__ import annotations

import time
from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task
from oracle_lib.effects import leave


def tell(context, text):
    """Write a line, with the run's number, to the file that all runs of the DAG share."""
    leave(context, f"{text} {context['dag_run'].conf['number']}")


def failed(context):
    tell(context, f"{context['reason']} in")


def work(context, name):
    tell(context, f"start {name}")
    time.sleep(0.2)
    tell(context, f"end {name}")


with DAG("past_decides", schedule=None):

    @task(depends_on_past=True, retries=1, retry_delay=timedelta(seconds=1))
    def careful(ti=None, **context):
        tell(context, f"try {ti.try_number} of")
        if context["dag_run"].conf["number"] == 1 and ti.try_number == 1:
            raise ValueError("the first run's first try")

    @task
    def careless():
        return "doesn't wait"

    careful() >> careless() >> EmptyOperator(task_id="last", depends_on_past=True)


with DAG("downstream_of_the_past_decides", schedule=None):

    @task(wait_for_downstream=True)
    def begin(**context):
        work(context, "begin")

    @task
    def end(**context):
        work(context, "end")

    begin() >> end() >> EmptyOperator(task_id="last")


with DAG("empty_past_decides", schedule=None):
    gate = EmptyOperator(task_id="gate", depends_on_past=True)

    @task
    def slow():
        time.sleep(1)

    gate >> slow() >> EmptyOperator(task_id="back", wait_for_downstream=True) >> EmptyOperator(task_id="end")


with DAG(
    "past_failed",
    schedule=None,
    max_active_runs=1,
    dagrun_timeout=timedelta(seconds=15),
    on_failure_callback=failed,
):

    @task(depends_on_past=True)
    def fails_at_first(**context):
        tell(context, "runs")
        if context["dag_run"].conf["number"] == 1:
            raise ValueError("the first run")

    fails_at_first() >> EmptyOperator(task_id="after")


with DAG("skipped_past_is_fine", schedule=None):

    @task.short_circuit
    def only_from_the_second_run(**context):
        return context["dag_run"].conf["number"] > 1

    @task(depends_on_past=True)
    def follows(**context):
        tell(context, "ran")

    only_from_the_second_run() >> follows()


with DAG("one_run_at_a_time", schedule=None, max_active_runs=1):

    @task
    def one(**context):
        work(context, "one")

    @task
    def two(**context):
        work(context, "two")

    one() >> two()


with DAG("one_of_a_task_at_a_time", schedule=None):

    @task(max_active_tis_per_dag=1)
    def lonely(**context):
        tell(context, "start")
        time.sleep(1)
        tell(context, "end")

    lonely()


with DAG("one_slot_for_all_runs", schedule=None):

    @task(pool="oracle_one_slot")
    def slot(**context):
        tell(context, "start")
        time.sleep(1)
        tell(context, "end")

    slot()
