"""Branches, skips, short circuits and joins."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

JOIN = "none_failed_min_one_success"

with DAG("branch_and_join", schedule=None):

    @task.branch
    def choose():
        return ["left", "both"]

    @task
    def left():
        return "went left"

    @task
    def right():
        return "went right"

    @task
    def both():
        return "in both"

    @task(trigger_rule=JOIN)
    def join(ti=None):
        return [ti.xcom_pull("left"), ti.xcom_pull("right")]

    chosen = choose()
    joined = join()
    chosen >> [left(), right(), both()] >> joined
    chosen >> EmptyOperator(task_id="not_joined") >> EmptyOperator(task_id="all_success_below")

with DAG("branch_into_group", schedule=None):

    @task.branch
    def choose_group():
        return "group_a"

    @task_group
    def group_a():
        @task
        def first():
            return "a"

        first() >> EmptyOperator(task_id="last")

    @task_group
    def group_b():
        EmptyOperator(task_id="only")

    choose_group() >> [group_a(), group_b()] >> EmptyOperator(task_id="joined", trigger_rule=JOIN)

with DAG("branch_to_nothing", schedule=None):

    @task.branch
    def choose_none():
        return None

    choose_none() >> [EmptyOperator(task_id="one"), EmptyOperator(task_id="two")]

with DAG("branch_to_a_stranger", schedule=None):

    @task.branch
    def choose_stranger():
        return "no_such_task"

    choose_stranger() >> EmptyOperator(task_id="below")

with DAG("skip_and_join", schedule=None):

    @task
    def skips():
        raise AirflowSkipException("as planned")

    @task
    def works():
        return "worked"

    upstream = [skips(), works()]
    upstream >> EmptyOperator(task_id="min_one_success", trigger_rule=JOIN)
    upstream >> EmptyOperator(task_id="all_success") >> EmptyOperator(task_id="below_all_success")

with DAG("short_circuit", schedule=None):

    @task.short_circuit
    def stop():
        return False

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def stop_softly():
        return []

    @task.short_circuit
    def go_on():
        return "yes"

    (
        stop()
        >> EmptyOperator(task_id="stopped")
        >> EmptyOperator(task_id="stopped_all_done", trigger_rule="all_done")
    )
    (
        stop_softly()
        >> EmptyOperator(task_id="softly_stopped")
        >> EmptyOperator(task_id="softly_all_done", trigger_rule="all_done")
    )
    go_on() >> EmptyOperator(task_id="went_on")
