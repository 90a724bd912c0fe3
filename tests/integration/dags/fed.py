"""What a grid has to tell: a group, mapped tasks, a try that fails, one that lasts until a file appears."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, get_current_context, task, task_group


@dag(schedule=None, params={"gate": ""})
def fed():
    @task
    def rows():
        return ["north", "south"]

    @task(retries=1, retry_delay=timedelta(milliseconds=50))
    def mow(row):
        if row == "south" and get_current_context()["ti"].try_number == 1:
            raise RuntimeError("out of fuel")

    @task_group
    def barn():
        @task
        def open_up():
            gate = get_current_context()["params"]["gate"]
            while gate and not Path(gate).exists():
                time.sleep(0.05)

        @task(retries=2)
        def store():
            """Put it all away."""

        open_up() >> store()

    mow.expand(row=rows()) >> barn()


fed()
