"""DAGs that time starts."""

from datetime import datetime, timedelta, timezone

import pendulum
from airflow.sdk import DAG, CronDataIntervalTimetable, task

LONG_AGO = datetime(2026, 1, 1, tzinfo=timezone.utc)
ZURICH = "Europe/Zurich"


@task
def look(logical_date=None, data_interval_start=None, data_interval_end=None):
    return [str(logical_date), str(data_interval_start), str(data_interval_end)]


with DAG("by_time_interval", schedule=timedelta(seconds=3), start_date=LONG_AGO, catchup=False):
    look()

with DAG(
    "by_time_catchup",
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone=ZURICH),
    start_date=pendulum.datetime(2026, 3, 26, tz=ZURICH),
    end_date=pendulum.datetime(2026, 4, 1, tz=ZURICH),
    catchup=True,
    max_active_runs=1,
):
    look()

with DAG(
    "by_time_latest",
    schedule=CronDataIntervalTimetable("0 2 1 * *", timezone=ZURICH),
    start_date=pendulum.datetime(2024, 1, 1, tz=ZURICH),
    catchup=False,
):
    look()

with DAG("by_time_weekday", schedule="0 0 15W * *", start_date=LONG_AGO, catchup=False):
    look()

with DAG("by_time_nothing", schedule=None):
    look()
