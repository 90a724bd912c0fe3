"""DAGs of which some are Temporal's and some are Airflow's."""

from __future__ import annotations

from _tracing import is_open, traced
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG

with DAG("native_simple", schedule=None):
    traced("first") >> traced("second")

with DAG("crowd", schedule=None, max_active_runs=500, max_active_tasks=500):
    traced("only", pool="crowd")

with DAG("paced", schedule=None):
    # While it waits, no process of it runs. On a busy machine Airflow's scheduler takes a task for failed that is
    # queued again before it has heard of the end of its process.
    waits = PythonSensor(task_id="waits", python_callable=is_open, mode="reschedule", poke_interval=8)
    traced("first") >> waits >> traced("last")
