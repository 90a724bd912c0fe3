"""Orders of a day: fetched, priced per region, approved by a person, and published."""

from pathlib import Path

import pendulum
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Asset, dag, task, task_group

RATES = Path(__file__).with_name("rates.json")


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), tags=["tour"])
def orders():
    @task
    def fetch():
        return ["north", "south", "west"]

    @task_group
    def pricing():
        @task
        def rates():
            if not RATES.exists():
                raise FileNotFoundError(f"there is no {RATES.name}")
            return 1.1

        @task
        def price(region: str, rate: float):
            print(f"{region}: {100 * rate:.2f}")
            return 100 * rate

        return price.partial(rate=rates()).expand(region=fetch())

    approve = ApprovalOperator(
        task_id="approve", subject="Publish these prices?", body="Three regions, rate 1.1."
    )

    @task(outlets=[Asset("prices")])
    def publish():
        print("published")

    pricing() >> approve >> publish()


orders()
