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
    # A sensor that waits has no process. The poke interval is long because a scheduler on a busy machine fails a task
    # that is queued again before it has noticed the end of the task's process.
    waits = PythonSensor(task_id="waits", python_callable=is_open, mode="reschedule", poke_interval=8)
    traced("first") >> waits >> traced("last")
