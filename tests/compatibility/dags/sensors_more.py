"""Sensors with backoff, errors and mapping, and a task that reschedules itself.

Rescheduled tasks wait for seconds, because native Airflow treats a task that is queued again too soon as lost.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, BaseSensorOperator, PokeReturnValue, task
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException, AirflowSkipException
from oracle_lib.effects import leave, lines, task_callback

callbacks = {
    "on_retry_callback": task_callback("retry"),
    "on_failure_callback": task_callback("failure"),
    "on_skipped_callback": task_callback("skipped"),
    "on_success_callback": task_callback("success"),
    "retry_delay": timedelta(seconds=0.2),
}


class Countdown(BaseSensorOperator):
    """Succeeds at its last poke."""

    def __init__(self, *, pokes: int, **kwargs):
        super().__init__(**kwargs)
        self.pokes = pokes

    def poke(self, context):
        leave(context, f"poke {self.task_id}")
        return lines(context).count(f"poke {self.task_id}") >= self.pokes


with DAG("sensor_backoff", schedule=None):
    backoff = {"exponential_backoff": True, "timeout": timedelta(minutes=5)}
    Countdown(task_id="poking", pokes=3, mode="poke", poke_interval=0.1, max_wait=0.2, **backoff)
    rescheduled = {"mode": "reschedule", "pokes": 2, **backoff}
    Countdown(task_id="limited", poke_interval=600, max_wait=timedelta(seconds=4), **rescheduled)
    Countdown(task_id="unlimited", poke_interval=timedelta(seconds=8), **rescheduled)


with DAG("sensor_errors", schedule=None, default_args=callbacks):
    errors = {"plain": ValueError, "fail": AirflowFailException, "skip": AirflowSkipException}
    ways = {
        "usual": {},
        "soft": {"soft_fail": True},
        "silent": {"silent_fail": True},
        "never": {"never_fail": True},
    }
    for name in errors:
        for way, options in ways.items():

            @task.sensor(task_id=f"{name}_{way}", mode="poke", poke_interval=0.1, timeout=60, **options)
            def errs(name, ti=None, **context):
                leave(context, f"poke {ti.task_id}")
                if lines(context).count(f"poke {ti.task_id}") == 1:
                    raise errors[name]("at the first poke")
                return True

            errs(name)

    @task.sensor(mode="poke", poke_interval=0.1, timeout=60, retries=1)
    def errs_once(ti=None):
        if ti.try_number == 1:
            raise ValueError("in the first try")
        return PokeReturnValue(is_done=True, xcom_value=ti.try_number)

    @task.sensor(mode="poke", poke_interval=0.1, timeout=0.3, never_fail=True)
    def never_in_time():
        return False

    @task.sensor(mode="poke", timeout=60, execution_timeout=timedelta(seconds=1), soft_fail=True)
    def poke_takes_too_long():
        time.sleep(60)

    @task.sensor(mode="poke", poke_interval=60, timeout=90, execution_timeout=timedelta(seconds=1), retries=1)
    def waits_too_long():
        return False

    errs_once()
    never_in_time()
    poke_takes_too_long()
    waits_too_long()


with DAG("sensor_timeout_over_retries", schedule=None, default_args=callbacks):

    @task.sensor(mode="reschedule", poke_interval=4, timeout=2, retries=1, retry_delay=timedelta(seconds=0.5))
    def counts_anew_in_each_try(ti=None, **context):
        leave(context, f"poke try={ti.try_number}")
        if len(lines(context)) == 2:
            raise ValueError("at the second poke")
        return False

    counts_anew_in_each_try()


with DAG("sensor_timeout_is_final", schedule=None, default_args=callbacks):

    @task.sensor(mode="reschedule", poke_interval=4, timeout=1, retries=3)
    def hard():
        return False

    @task.sensor(mode="reschedule", poke_interval=4, timeout=1, retries=3, soft_fail=True)
    def soft():
        return False

    @task(trigger_rule="all_done")
    def after():
        return "after both"

    [hard(), soft()] >> after()


with DAG("sensor_mapped", schedule=None):

    @task.sensor(mode="reschedule", poke_interval=4, timeout=120)
    def each(pokes, ti=None, **context):
        leave(context, f"poke {ti.map_index}")
        done = lines(context).count(f"poke {ti.map_index}") >= pokes
        return PokeReturnValue(is_done=done, xcom_value=f"after {pokes}")

    @task.sensor(mode="poke", poke_interval=0.1, timeout=0.3, soft_fail=True)
    def some_in_time(value):
        return value

    @task
    def gather(values):
        return sorted(values)

    @task(trigger_rule="none_failed")
    def after(values):
        return list(values)

    gather(each.expand(pokes=[1, 2, 3]))
    after(some_in_time.expand(value=[True, False]))


with DAG("task_reschedules_itself", schedule=None, default_args=callbacks):

    @task
    def later(ti=None, **context):
        leave(context, f"try {ti.try_number}")
        if len(lines(context)) < 2:
            raise AirflowRescheduleException(datetime.now(tz=timezone.utc) + timedelta(seconds=4))
        return ti.try_number

    later()
