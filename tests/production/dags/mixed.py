"""DAGs of which Temporal executes some and Airflow the others."""

from __future__ import annotations

from _tracing import is_open, traced
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG

with DAG("native_simple", schedule=None):
    traced("first") >> traced("second")

with DAG("crowd", schedule=None, max_active_runs=500, max_active_tasks=500):
    traced("only", pool="crowd")

with DAG("paced", schedule=None):
    # The poke interval is long: if a task is queued again before Airflow's scheduler has noticed the end of its process,
    # as on a busy machine, the scheduler fails it.
    waits = PythonSensor(task_id="waits", python_callable=is_open, mode="reschedule", poke_interval=8)
    traced("first") >> waits >> traced("last")
