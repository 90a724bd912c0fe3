"""DAGs whose runs come from all sources that Airflow has."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from _tracing import gated, trace, traced
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import (
    DAG,
    Asset,
    CronPartitionTimetable,
    PartitionedAssetTimetable,
    PartitionedAtRuntime,
    asset,
    task,
)
from moments import Moments


def day(number: int) -> datetime:
    return datetime(2025, 3, number, tzinfo=timezone.utc)


with DAG("simple", schedule=None):
    traced("first") >> traced("second")

with DAG("fails_once", schedule=None):

    @task
    def fails():
        trace()
        from airflow.sdk import get_current_context

        if get_current_context()["ti"].try_number == 1:
            raise RuntimeError("the first try fails")

    traced("before") >> fails() >> traced("after")

with DAG("two_at_once", schedule=None, max_active_runs=2):
    gated("waits") >> traced("ends")

with DAG(
    "often", schedule=timedelta(seconds=3), catchup=False, start_date=day(1), is_paused_upon_creation=True
):
    traced("only")

with DAG(
    "caught_up",
    schedule="0 0 * * *",
    start_date=day(1),
    end_date=day(4),
    catchup=True,
    max_active_runs=2,
    is_paused_upon_creation=True,
):
    gated("waits") >> traced("ends")

with DAG(
    "by_own_timetable",
    schedule=Moments([day(5), day(7), day(11)]),
    start_date=day(1),
    catchup=True,
    is_paused_upon_creation=True,
):
    traced("only")

with DAG(
    "backfilled", schedule="0 0 * * *", start_date=day(1), end_date=day(9), catchup=False, max_active_runs=16
):
    gated("waits") >> traced("ends")

grain, flour = Asset("production://grain"), Asset("production://flour")

with DAG("grows", schedule=None):
    traced("grain", outlets=[grain])

with DAG("mills", schedule=[grain]):
    traced("flour", outlets=[flour])

with DAG("bakes", schedule=[flour]):
    traced("bread")

parts = Asset("production://parts")

with DAG("in_parts", schedule=PartitionedAtRuntime()):

    @task(outlets=[parts])
    def emits(*, outlet_events):
        trace()
        outlet_events[parts].add_partitions(["north", "south"])

    emits()

with DAG("of_each_part", schedule=PartitionedAssetTimetable(assets=parts), catchup=False):
    traced("only")

with DAG(
    "partitioned_by_time",
    schedule=CronPartitionTimetable("0 0 * * *", timezone="UTC"),
    start_date=day(1),
    end_date=day(2),
    catchup=True,
    is_paused_upon_creation=True,
):
    traced("only")


@asset(schedule=None)
def made_to_order():
    trace()


for name, how in {
    "triggers": {},
    "triggers_and_waits": {"wait_for_completion": True, "poke_interval": 1},
    "triggers_and_defers": {"wait_for_completion": True, "poke_interval": 1, "deferrable": True},
}.items():
    with DAG(name, schedule=None):
        (
            TriggerDagRunOperator(
                task_id="trigger",
                trigger_dag_id="simple",
                trigger_run_id="{{ run_id }}-of-{{ dag.dag_id }}",
                **how,
            )
            >> traced("after")
        )
