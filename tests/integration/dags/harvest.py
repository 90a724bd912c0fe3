"""A bit of everything that frames tell of: groups, mapped tasks, a retry, a skip, a failure, assets."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

crop = Asset(name="crop", uri="farm://crop", group="farm")

with DAG(
    "harvest", schedule=None, tags=["farm", "autumn"], default_args={"owner": "anna"}, description="Ripe."
):

    @task
    def fields():
        return ["north", "south"]

    @task(retries=2, retry_delay=timedelta(milliseconds=50), map_index_template="{{ field }}")
    def mow(field):
        context = get_current_context()
        context["field"] = field
        if field == "south" and context["ti"].try_number == 1:
            raise RuntimeError("out of fuel")
        return len(field)

    @task_group
    def barn(loads):
        @task(outlets=[crop])
        def store(loads, *, outlet_events):
            outlet_events[crop].extra = {"loads": sum(loads)}

        @task
        def sell():
            raise AirflowSkipException("nobody buys")

        store(loads) >> sell()

    @task
    def fence():
        raise ValueError("no wood")

    fence()
    barn(mow.expand(field=fields()))

with DAG("bakery", schedule=[crop]):

    @task
    def bake():
        return "bread"

    bake()
