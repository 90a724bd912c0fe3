"""A chain whose middle task can be interrupted; each start of a task leaves a line in a file named by conf."""

from __future__ import annotations

import os
import time

from airflow.sdk import dag, task


def note(params: dict, text: str) -> None:
    with open(params["trace"], "a") as trace:
        trace.write(f"{text} {os.getpid()}\n")


@dag(schedule=None, params={"trace": "", "seconds": 0.0})
def interrupted():
    @task
    def before(params=None):
        note(params, "before")

    @task.bash
    def shell(params=None):
        return "true"

    @task
    def middle(params=None, ti=None):
        note(params, f"middle-{ti.try_number}")
        time.sleep(params["seconds"])
        return ti.try_number

    @task
    def after(params=None):
        note(params, "after")

    before() >> shell() >> middle() >> after()


interrupted()
