"""Priority weights and pool slots of tasks."""

from __future__ import annotations

import time
from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, task
from oracle_lib.effects import leave


class Works(BaseOperator):
    """Writes a line when it starts and when it ends."""

    def execute(self, context):
        leave(context, f"start {self.task_id}")
        time.sleep(0.2)
        leave(context, f"end {self.task_id}")


class Waits(BaseOperator):
    """Releases its process while it waits."""

    def execute(self, context):
        leave(context, f"{self.task_id} defers")
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=4)), method_name="resumed")

    def resumed(self, context, event=None):
        leave(context, f"{self.task_id} resumed")


one_slot = {"pool": "oracle_one_slot"}

with DAG("weighed_by_downstream", schedule=None, default_args=one_slot):
    for name, below in {"first": 5, "third": 1, "second": 3}.items():
        leaves = [
            EmptyOperator(task_id=f"below_{name}_{number}", trigger_rule="all_done")
            for number in range(below)
        ]
        Works(task_id=name, weight_rule="downstream") >> leaves

with DAG("weighed_by_upstream", schedule=None, default_args=one_slot):
    gate = Works(task_id="gate")
    for name, above in {"third": 1, "first": 5, "second": 3}.items():
        before = [EmptyOperator(task_id=f"above_{name}_{number}") for number in range(above)]
        [gate, *before] >> Works(task_id=name, weight_rule="upstream")

with DAG("weighed_alone", schedule=None, default_args=one_slot):
    for name, weight in {"second": 0, "third": -7, "first": 7}.items():
        work = Works(task_id=name, weight_rule="absolute", priority_weight=weight)
        work >> [EmptyOperator(task_id=f"below_{name}_{number}") for number in range(5 - weight % 5)]

with DAG("several_slots_each", schedule=None, default_args={"pool": "oracle_two_slots"}):
    for name, slots, weight in (("wide", 2, 9), ("wider", 2, 7), ("widest", 2, 5)):
        Works(task_id=name, pool_slots=slots, priority_weight=weight, weight_rule="absolute")

with DAG("deferred_keeps_its_slot", schedule=None, default_args={"pool": "oracle_slot_of_deferred"}):
    Waits(task_id="waiting", priority_weight=9)
    Works(task_id="other")

with DAG("deferred_gives_its_slot_back", schedule=None, default_args={"pool": "oracle_slot_given_back"}):
    Waits(task_id="waiting", priority_weight=9)
    Works(task_id="other")

with DAG("few_of_each_task_in_a_run", schedule=None):

    @task(max_active_tis_per_dagrun=1)
    def one_by_one(x, ti=None, **context):
        leave(context, f"start {ti.map_index}")
        time.sleep(0.2)
        leave(context, f"end {ti.map_index}")

    one_by_one.expand(x=[1, 2, 3])
