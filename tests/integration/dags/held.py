"""Tasks that run until a file is there, and say what happens to them."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, BaseOperator, task


def say(context, text):
    folder = Path(context["dag_run"].conf["folder"])
    with (folder / "trace").open("a") as file:
        file.write(f"{text}\n")


class Held(BaseOperator):
    """Ends when ``go`` is in the folder of the run's conf."""

    killed = False

    def execute(self, context):
        self.context = context
        say(context, f"{self.task_id} starts try {context['ti'].try_number}")
        while not (Path(context["dag_run"].conf["folder"]) / "go").exists():
            if self.killed:
                raise RuntimeError("killed")
            time.sleep(0.05)

    def on_kill(self):
        say(self.context, f"{self.task_id} on_kill")
        self.killed = True


def run_failed(context):
    say(context, "the run failed")


with DAG("held", schedule=None, on_failure_callback=run_failed):

    @task
    def first():
        return [0, 1]

    @task
    def each(x):
        return x

    first() >> Held(task_id="middle") >> each.expand(x=[0, 1])

with DAG("held_one_by_one", schedule=None, max_active_runs=1):
    Held(task_id="middle")

with DAG("held_for_long", schedule=None, dagrun_timeout=timedelta(seconds=10)):
    Held(task_id="middle")
