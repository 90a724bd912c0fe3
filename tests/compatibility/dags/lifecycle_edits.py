"""DAGs whose file is edited while they run, and afterwards: see ``oracle/scenarios.py``."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task
from oracle_lib.holding import Hold

WHILE_RUNNING = 1
AFTERWARDS = 1

with DAG("edit_running", schedule=None):

    @task
    def version():
        return WHILE_RUNNING

    holds = Hold(task_id="holds")
    holds >> version()
    if WHILE_RUNNING == 1:
        holds >> EmptyOperator(task_id="old")
    else:
        EmptyOperator(task_id="new_root") >> EmptyOperator(task_id="new")

with DAG("edit_finished", schedule=None):

    @task
    def version():
        return AFTERWARDS

    if AFTERWARDS == 1:
        version() >> EmptyOperator(task_id="old")
    else:
        version() >> EmptyOperator(task_id="new")

if WHILE_RUNNING + AFTERWARDS > 2:
    with DAG("gained", schedule=None):
        EmptyOperator(task_id="only")
