"""Events for a plugin's listeners; the plugin is in ``tests/compatibility/plugins``."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, Asset, BaseOperator, PokeReturnValue, task
from airflow.sdk.exceptions import AirflowSkipException

ASSET = Asset("oracle_listened_to")


class Defers(BaseOperator):
    """Runs in two parts, before and after a deferral."""

    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=4)), method_name="resumed")

    def resumed(self, context, event=None):
        return "resumed"


with DAG("listeners_success", schedule=None):

    @task(outlets=[ASSET])
    def works(outlet_events=None, dag_run=None):
        outlet_events[ASSET].extra = {"listener effects": dag_run.conf["effects"]}

    @task
    def skips():
        raise AirflowSkipException("as planned")

    @task(retries=1, retry_delay=0)
    def fails_once(ti=None):
        if ti.try_number == 1:
            raise ValueError("once")

    @task
    def mapped(x):
        return x

    @task.sensor(mode="reschedule", poke_interval=4, timeout=60)
    def pokes_twice(task_reschedule_count=0):
        return PokeReturnValue(is_done=task_reschedule_count > 0)

    @task.branch
    def branches():
        return []

    works() >> skips() >> EmptyOperator(task_id="skipped_by_rule")
    fails_once()
    mapped.expand(x=[1, 2])
    pokes_twice()
    Defers(task_id="defers")
    branches() >> EmptyOperator(task_id="skipped_by_branch")
    EmptyOperator(task_id="empty")

with DAG("listeners_failure", schedule=None):

    @task
    def fails():
        raise KeyError("as planned")

    def kill_myself():
        os.kill(os.getpid(), signal.SIGKILL)

    fails() >> EmptyOperator(task_id="blocked")
    PythonOperator(task_id="killed", python_callable=kill_myself)
