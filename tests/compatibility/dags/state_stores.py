"""State stores: values that tasks keep between tries, and assets between tasks."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, Asset, BaseOperator, PokeReturnValue, ResumableJobMixin, task
from oracle_lib.effects import leave, lines

retry = {"retries": 1, "retry_delay": 0}

with DAG("task_state_store", schedule=None, default_args={"retry_delay": 0}):

    @task(**retry)
    def counts(ti=None, task_state_store=None):
        task_state_store.set("tries", task_state_store.get("tries", default=0) + 1)
        if ti.try_number == 1:
            task_state_store.set("value", {"a": [1, None, "ä"], "b": {"c": 1.5}})
            task_state_store.set("short", "kept", retention=timedelta(days=1))
            raise ValueError("once")
        return [task_state_store.get(key, default="missing") for key in ("tries", "value", "short", "other")]

    @task
    def forgets(task_state_store=None):
        for key in ("a", "b", "c"):
            task_state_store.set(key, key.upper())
        task_state_store.set("b", "twice")
        task_state_store.delete("a")
        seen = [task_state_store.get(key) for key in ("a", "b", "c")]
        task_state_store.clear()
        return [seen, task_state_store.get("b"), task_state_store.get("c", default="gone")]

    @task
    def sees_nothing_of_others(task_state_store=None):
        return task_state_store.get("tries")

    @task(**retry)
    def mapped(x, ti=None, task_state_store=None):
        if ti.try_number == 1:
            task_state_store.set("x", x)
            raise ValueError("once")
        return task_state_store.get("x")

    @task
    def refuses(task_state_store=None):
        task_state_store.set("bad", object())

    @task.sensor(mode="reschedule", poke_interval=4, timeout=60)
    def pokes(task_state_store=None):
        seen = task_state_store.get("pokes", default=0) + 1
        task_state_store.set("pokes", seen)
        return PokeReturnValue(is_done=seen == 2, xcom_value=seen)

    class Defers(BaseOperator):
        """Stores a value before its deferral, and reads it afterwards."""

        def execute(self, context):
            context["task_state_store"].set("before", [context["ti"].try_number])
            self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=4)), method_name="resumed")

        def resumed(self, context, event=None):
            return context["task_state_store"].get("before")

    counts() >> sees_nothing_of_others()
    forgets()
    mapped.expand(x=["p", "q"])
    refuses()
    pokes()
    Defers(task_id="defers")

with DAG("asset_state_store", schedule=None):
    first, second = Asset("oracle_state_1"), Asset("oracle_state_2", uri="x-oracle://state/2")

    @task(outlets=[first, second])
    def write(asset_state_store=None):
        for asset in (first, second):
            asset_state_store[asset].clear()
        asset_state_store[first].set("watermark", {"day": "2024-01-01", "rows": 3})
        asset_state_store[second].set("watermark", 7)
        asset_state_store[second].set("other", [None])
        return asset_state_store[first].get("watermark")

    @task(inlets=[first])
    def read_only_one(asset_state_store=None):
        return [asset_state_store.get("watermark"), asset_state_store.get("none", default="missing")]

    @task(inlets=[first, second])
    def read(asset_state_store=None):
        seen = [asset_state_store[asset].get("watermark") for asset in (first, second)]
        asset_state_store[second].delete("watermark")
        return [*seen, asset_state_store[second].get("watermark", default="deleted")]

    @task(inlets=[first, second])
    def ambiguous(asset_state_store=None):
        return asset_state_store.get("watermark")

    @task(inlets=[first])
    def no_value(asset_state_store=None):
        asset_state_store.set("watermark", None)

    write() >> read_only_one() >> read() >> [ambiguous(), no_value()]

with DAG("resumable_jobs", schedule=None, default_args=retry):

    class Job(ResumableJobMixin, BaseOperator):
        """Submits a job that continues without its task."""

        external_id_key = "job"

        def __init__(self, *, status: str, **kwargs):
            super().__init__(**kwargs)
            self.status = status

        def execute(self, context):
            return self.execute_resumable(context)

        def submit_job(self, context):
            number = sum(line.startswith(f"submitted {self.task_id}") for line in lines(context)) + 1
            leave(context, f"submitted {self.task_id} {number}")
            return {"job": number}

        def get_job_status(self, external_id, context):
            leave(context, f"asked for {self.task_id} {external_id['job']}")
            return self.status

        def is_job_active(self, status):
            return status == "RUNNING"

        def is_job_succeeded(self, status):
            return status == "SUCCEEDED"

        def poll_until_complete(self, external_id, context):
            leave(context, f"waited for {self.task_id} {external_id['job']} try={context['ti'].try_number}")
            if context["ti"].try_number == 1:
                raise ConnectionError("lost sight of it")
            return f"polled {external_id['job']}"

        def get_job_result(self, external_id, context):
            return f"result of {external_id['job']}"

    for status in ("RUNNING", "SUCCEEDED", "FAILED"):
        Job(task_id=status.lower(), status=status)
    Job(task_id="not_durable", status="RUNNING", durable=False)
