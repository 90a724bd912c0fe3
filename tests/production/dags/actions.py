"""DAGs for user actions; each exists twice, for Temporal and for Airflow's executor."""

from __future__ import annotations

from datetime import timedelta

from _tracing import gated, trace, traced
from airflow.providers.standard.operators.hitl import HITLEntryOperator, HITLOperator
from airflow.sdk import DAG, Param, task


@task(retries=1, retry_delay=timedelta(hours=1))
def fails():
    trace()
    raise RuntimeError("to be tried again in an hour")


with DAG("swept", schedule=None):
    traced("first") >> traced("second")

for prefix in ("", "native_"):
    with DAG(f"{prefix}acted", schedule=None):
        prepares, waits = traced("prepares"), gated("waits")
        prepares >> waits >> traced("after")
        prepares >> traced("other")

    with DAG(f"{prefix}pooled", schedule=None):
        gated("one", pool=f"{prefix}narrow")
        gated("two", pool=f"{prefix}narrow")

    with DAG(f"{prefix}retried", schedule=None):
        fails() >> traced("after")

    with DAG(f"{prefix}asked", schedule=None):
        (
            [
                HITLOperator(task_id="asks", subject="Which?", options=["this", "that"]),
                HITLEntryOperator(
                    task_id="enters", subject="How many?", params={"number": Param(1, type="integer")}
                ),
            ]
            >> traced("after")
        )
