"""Runs that take longer than their deadline allows."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, DeadlineAlert, DeadlineReference, SyncCallback, task
from airflow.sdk.definitions.callback import AsyncCallback
from oracle_lib.effects import deadline_missed


def on_missed(context, name):
    """Write a line; this callback is in the DAG file itself."""
    deadline_missed(context, name)


def alert(name, callback, seconds=0.5, reference=DeadlineReference.DAGRUN_QUEUED_AT):
    return DeadlineAlert(reference=reference, interval=timedelta(seconds=seconds), callback=callback)


with DAG(
    "deadline_missed",
    schedule=None,
    deadline=[
        alert("sync", SyncCallback(deadline_missed, kwargs={"name": "sync"})),
        alert("own", SyncCallback(on_missed, kwargs={"name": "of the DAG file"})),
        alert("async", AsyncCallback("oracle_lib.effects.deadline_missed_async", kwargs={"name": "async"})),
        alert(
            "fixed",
            SyncCallback(deadline_missed, kwargs={"name": "fixed"}),
            reference=DeadlineReference.FIXED_DATETIME(datetime(2024, 1, 1, tzinfo=timezone.utc)),
        ),
    ],
):

    @task
    def slow():
        time.sleep(4)

    slow()

with DAG(
    "deadline_met",
    schedule=None,
    deadline=alert("sync", SyncCallback(deadline_missed, kwargs={"name": "sync"}), seconds=3600),
):

    @task
    def quick():
        return "quick"

    quick()
