"""All ways to push and to pull XComs."""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

with DAG("xcom_access", schedule=None):

    @task(multiple_outputs=True)
    def several():
        return {"left": 1, "right": [2, 3]}

    @task(do_xcom_push=False)
    def silent():
        return "not kept"

    @task
    def keys(ti=None):
        ti.xcom_push(key="a key with / and ünïcode", value="first")
        ti.xcom_push(key="twice", value=1)
        ti.xcom_push(key="twice", value=2)

    @task
    def instance(x):
        return x * 10

    @task
    def pull(left, right, ti=None):
        return {
            "left": left,
            "right": right,
            "odd key": ti.xcom_pull(task_ids="keys", key="a key with / and ünïcode"),
            "twice": ti.xcom_pull(task_ids="keys", key="twice"),
            "missing": ti.xcom_pull(task_ids="silent"),
            "default": ti.xcom_pull(task_ids="silent", default="a default"),
            "several tasks": list(ti.xcom_pull(task_ids=["several", "silent", "keys"])),
            "mapped": list(ti.xcom_pull(task_ids="instance")),
            "one of the mapped": ti.xcom_pull(task_ids="instance", map_indexes=1),
            "some of the mapped": list(ti.xcom_pull(task_ids="instance", map_indexes=[2, 0])),
        }

    outputs = several()
    pulled = pull(outputs["left"], outputs["right"])
    [silent(), keys(), instance.expand(x=[1, 2, 3])] >> pulled
    pulled >> BashOperator(task_id="bash", bash_command="echo {{ ti.xcom_pull('several')['right'][1] }}")
