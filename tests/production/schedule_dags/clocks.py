"""DAGs with a run every few seconds: created by Temporal, or by Airflow for Temporal or for its own executor."""

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, DeltaTriggerTimetable, task
from dateutil.relativedelta import relativedelta

schedules = {
    "clock_of_temporal": timedelta(seconds=3),
    "clock_of_airflow": DeltaTriggerTimetable(relativedelta(seconds=5)),
    "clock_unmanaged": timedelta(seconds=10),
}

for dag_id, schedule in schedules.items():
    with DAG(
        dag_id, schedule=schedule, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False
    ) as dag:
        task(task_id="tick")(lambda: None)()
