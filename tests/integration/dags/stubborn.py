"""A task that starts a process of its own and says when it is killed."""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG("stubborn", schedule=None, params={"trace": ""}):
    BashOperator(
        task_id="sleeps",
        bash_command="echo $$ >> {{ params.trace }}; sleep 300 & wait",
    )
