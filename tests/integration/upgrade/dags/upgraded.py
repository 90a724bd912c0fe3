"""The DAGs of the recorded stack.

Each start of a task adds a line to the file ``trace`` beside this file. A task that waits does so until there is a file
``go`` beside this file, or until ``SOON`` has passed.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG, Connection, Variable, get_current_context, task

FOLDER = Path(__file__).parent
# Longer than the recording goes on after the first task has begun to wait.
SOON = timedelta(minutes=3)
# The recording is to be of use for years, in which nothing but `timed_out` may time out.
EVER = timedelta(days=36_500)


def note() -> int:
    """Add a line for the running task instance to the trace; return the number of its try."""
    ti = get_current_context()["ti"]
    with (FOLDER / "trace").open("a") as trace:
        trace.write(f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.map_index} {ti.try_number}\n")
    return ti.try_number


def may_go() -> bool:
    """Return whether a waiting task may go on."""
    return (FOLDER / "go").exists()


@task
def step(value=None):
    note()
    return value


@task
def square(n):
    note()
    return n * n


@task
def total(numbers):
    note()
    return sum(numbers)


@task(retries=1, retry_delay=timedelta(seconds=0.1))
def flaky():
    if note() == 1:
        raise RuntimeError("the first try fails")
    return "second try"


@task
def stored():
    """Read what is encrypted in the database."""
    note()
    return [Variable.get("word"), Connection.get("upgraded").password]


@task.sensor(poke_interval=SOON.total_seconds(), timeout=EVER.total_seconds(), mode="reschedule")
def file_is_there():
    note()
    return may_go()


with DAG("finished", schedule=None):
    squares = square.expand(n=step.override(task_id="numbers")([1, 2, 3]))
    shell = BashOperator(task_id="shell", bash_command="echo '{{ run_id }}'")
    [total(squares), flaky()] >> EmptyOperator(task_id="joined") >> [stored(), shell]

with DAG("failed", schedule=None):

    @task(retries=1, retry_delay=timedelta(seconds=0.1))
    def fails():
        note()
        raise RuntimeError("every try fails")

    step.override(task_id="begins")() >> fails() >> step.override(task_id="never_runs")()

with DAG("interrupted", schedule=None):

    @task(retries=1, retry_delay=SOON)
    def retried():
        if note() == 1:
            raise RuntimeError("the first try fails")
        return "second try"

    @task
    def running():
        """Run until the file is there: this try is interrupted when the stack stops."""
        tries = note()
        while not may_go():
            time.sleep(0.05)
        return tries

    (
        step.override(task_id="begins")("begun")
        >> [
            file_is_there(),
            retried(),
            running(),
            TimeDeltaSensor(task_id="deferred", delta=SOON, timeout=EVER.total_seconds(), deferrable=True),
            ApprovalOperator(task_id="approval", subject="May the run go on?"),
        ]
        >> stored.override(task_id="ends")()
    )

with DAG("continued", schedule=None):
    numbers = step.override(task_id="numbers")(list(range(20)))
    square.expand(n=numbers) >> file_is_there() >> step.override(task_id="ends")("ended")

with DAG("one_at_a_time", schedule=None, max_active_runs=1):
    file_is_there() >> step.override(task_id="ends")("ended")

with DAG("undelivered", schedule=None):
    step("run")

with DAG("timed_out", schedule=None, dagrun_timeout=SOON):

    @task.sensor(poke_interval=SOON.total_seconds(), timeout=EVER.total_seconds(), mode="reschedule")
    def nothing_is_there():
        note()
        return False

    nothing_is_there()

with DAG("by_time", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False):

    @task
    def day(data_interval_start=None):
        note()
        return str(data_interval_start.date())

    day()
