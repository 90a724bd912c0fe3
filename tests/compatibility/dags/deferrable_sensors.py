"""Sensors that wait in a trigger, and sensors that don't have to wait."""

from __future__ import annotations

import datetime
from datetime import timedelta

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG

with DAG("deferrable_sensors", schedule=None, start_date=datetime.datetime(2024, 1, 1)):
    TimeDeltaSensor(task_id="past_delta", delta=timedelta(days=-3650), deferrable=True)
    DateTimeSensorAsync(task_id="past", target_time="2024-01-01T00:00:00+00:00")
    DateTimeSensorAsync(
        task_id="past_from_trigger",
        target_time="2024-01-01T00:00:00+00:00",
        start_from_trigger=True,
        end_from_trigger=True,
        trigger_kwargs={"moment": datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)},
    )
