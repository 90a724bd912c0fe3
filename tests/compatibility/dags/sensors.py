"""Sensors that poke, reschedule and time out, with and without ``soft_fail``."""

from __future__ import annotations

from airflow.sdk import DAG, PokeReturnValue, task
from oracle_lib.effects import leave, lines

with DAG("sensor_reschedule", schedule=None):

    @task.sensor(mode="reschedule", poke_interval=1, timeout=120)
    def third_time(ti=None, **context):
        leave(context, f"poke try={ti.try_number}")
        return PokeReturnValue(is_done=len(lines(context)) >= 3, xcom_value="ready")

    @task
    def after(value):
        return value

    after(third_time())

with DAG("sensor_poke", schedule=None):

    @task.sensor(mode="poke", poke_interval=0.2, timeout=60)
    def third_poke(**context):
        leave(context, "poke")
        return len(lines(context)) >= 3

    third_poke()

with DAG("sensor_timeout", schedule=None):

    @task.sensor(mode="poke", poke_interval=0.2, timeout=0.5, soft_fail=True)
    def soft():
        return False

    @task.sensor(mode="poke", poke_interval=0.2, timeout=0.5, retries=3)
    def hard():
        return False

    @task.sensor(mode="reschedule", poke_interval=3, timeout=4.5)
    def rescheduled():
        return False

    @task
    def after_soft():
        return "never reached"

    soft() >> after_soft()
    hard()
    rescheduled()
