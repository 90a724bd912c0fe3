"""Task logs, with masked secrets."""

from __future__ import annotations

import logging
import sys

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, BaseHook, Variable, task
from airflow.sdk.log import mask_secret

log = logging.getLogger("oracle")

with DAG("task_logs", schedule=None):

    @task
    def speaks():
        print("printed")
        print("printed to stderr", file=sys.stderr)
        log.debug("not shown")
        log.info("informed %s", "with an argument")
        log.warning("warned")
        log.error("erred")
        print("several\nlines\n\nat once")

    @task
    def secrets():
        token = Variable.get("oracle_secret_token")
        print(f"the token is {token}")
        log.info("the password is %s", BaseHook.get_connection("oracle_http").password)
        mask_secret("registered-by-hand")
        log.info("by hand: registered-by-hand")
        return f"an xcom keeps {token}"

    @task
    def fails():
        token = Variable.get("oracle_secret_token")
        log.warning("about to fail")
        raise ValueError(f"bad token {token}")

    speaks()
    secrets()
    fails()
    PythonOperator(
        task_id="rendered",
        python_callable=lambda token: len(token),
        op_kwargs={"token": "{{ var.value.oracle_secret_token }}"},
    )
