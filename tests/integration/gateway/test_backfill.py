"""Backfills without a scheduler: Airflow creates the runs, and Temporal executes them."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from temporal_airflow_nb import Run
from temporal_airflow_nb.dag_runs.backfill_runs import BackfillRuns
from temporal_airflow_nb.errors import InvalidConfError, InvalidInputError
from temporal_airflow_nb.messages.requests import Backfill, SubmitFile

SOURCE = """
import time
from datetime import datetime, timezone

from airflow.sdk import DAG, task

with DAG(
    "backfilled", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), max_active_runs=2,
    params={"n": 1},
):
    @task
    def day(ds=None, params=None):
        time.sleep(0.3)
        return f"{ds} {params['n']}"
    day()
"""


@pytest.fixture
def backfill(stack, tmp_path):
    """Backfill the DAG; returns its runs."""

    def backfill(start, end, **body):
        path = tmp_path / "backfilled.py"
        path.write_text(SOURCE)
        span = Backfill(f"{start}T00:00:00+00:00", f"{end}T00:00:00+00:00")
        answer = stack.client.submit_file(SubmitFile(str(path), backfill=span, **body))
        return BackfillRuns(Run(stack.client, answer["dag_id"], run_id) for run_id in answer["run_ids"])

    return backfill


def most_at_a_time(runs):
    spans = [(s["start_date"], s["end_date"]) for s in (run.snapshot() for run in runs)]
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)


def test_a_backfill_runs_every_date_within_max_active_runs(backfill, stack):
    runs = backfill("2026-01-01", "2026-01-05", params={"n": 2})
    assert runs.wait(timeout=90) == "success"
    values = [run.xcoms["value"].iloc[0] for run in runs]
    assert values == [f"2026-01-0{day} 2" for day in range(1, 6)]
    assert most_at_a_time(runs) <= 2
    with closing(sqlite3.connect(stack.home / "airflow" / "airflow.db")) as database:
        (done,) = database.execute("SELECT count(*) FROM backfill WHERE completed_at IS NULL").fetchone()
    assert done == 0


def test_a_second_backfill_runs_the_same_dates_again(backfill):
    backfill("2026-02-01", "2026-02-02").wait(timeout=60)
    again = backfill("2026-02-01", "2026-02-03", params={"n": 3})
    assert len(again) == 3
    assert again.wait(timeout=60) == "success"
    assert [run.xcoms["value"].iloc[0] for run in again] == [f"2026-02-0{day} 3" for day in (1, 2, 3)]


def test_a_backfill_is_refused_while_another_is_running(backfill):
    runs = backfill("2026-03-01", "2026-03-02")
    with pytest.raises(InvalidInputError, match="Another backfill is running") as caught:
        backfill("2026-03-01", "2026-03-02")
    assert "Wait for its runs" in caught.value.hint
    runs.wait(timeout=60)


def test_dates_and_params_are_checked(backfill):
    with pytest.raises(InvalidInputError, match="future"):
        backfill("2999-01-01", "2999-01-02")
    with pytest.raises(InvalidConfError, match="has no param 'm'"):
        backfill("2026-01-01", "2026-01-02", params={"m": 1})
