"""Native scheduling: Temporal Schedules create the runs of DAGs in a stack without Airflow's scheduler."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from airflow._shared.timezones.timezone import coerce_datetime
from airflow.timetables.base import TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable
from temporalio.client import ScheduleOverlapPolicy
from temporalio.service import RPCError, RPCStatusCode

from temporal_airflow_nb import LocalStack
from temporal_airflow_nb.stack.services import database
from tests.support.stack_helpers import DAGS, until, with_client, worker

DAG_FILE = DAGS / "by_time.py"
PREFIX = "by-time/"
TIMEOUT = 120.0


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("clocked") / "home"


@pytest.fixture(scope="module")
def clocked(home):
    """Start a stack with native scheduling."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEMPORAL_NATIVE_SCHEDULING", "true")
        patch.setenv("TEMPORAL_SCHEDULE_ID_PREFIX", PREFIX)
        with LocalStack(home) as stack:
            yield stack


def query(home, sql, *parameters):
    path = database.sqlite_path(home)
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(sql, parameters).fetchall()


def scheduled(home, dag_id):
    """Return the scheduled runs of a DAG, oldest first."""
    columns = (
        "run_id, logical_date, data_interval_start, data_interval_end, run_after, state, start_date, end_date"
    )
    return query(
        home,
        f"SELECT {columns} FROM dag_run WHERE dag_id = ? AND run_type = 'scheduled' ORDER BY logical_date",
        dag_id,
    )


def moment(text):
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def described(stack, dag_id):
    """Return Temporal's description of a DAG's Schedule, or None if it has none."""

    async def use(client):
        try:
            return await client.get_schedule_handle(PREFIX + dag_id).describe()
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return None
            raise

    return with_client(stack, use)


def triggered(stack, dag_id):
    """Trigger a Schedule; return the number of runs that it created."""

    async def use(client):
        handle = client.get_schedule_handle(PREFIX + dag_id)
        before = (await handle.describe()).info.num_actions
        await handle.trigger()
        while (info := (await handle.describe()).info).num_actions == before:
            pass
        return await client.get_workflow_handle(info.recent_actions[-1].action.workflow_id).result()

    return with_client(stack, use)


def airflow(stack, *arguments):
    environment = {**os.environ, **stack.status()["env"]}
    return subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        env=environment,
        check=True,
        capture_output=True,
        timeout=TIMEOUT,
    )


def started(stack, dag_id, path=DAG_FILE):
    """Run a DAG once, which stores and unpauses it; wait for its Schedule."""
    assert stack.run(path, dag_id=dag_id).wait(timeout=TIMEOUT) == "success"
    return until(lambda: described(stack, dag_id), f"a schedule of {dag_id}", TIMEOUT)


def test_each_fire_creates_one_run_at_its_time(clocked, home):
    description = started(clocked, "by_time_interval")
    assert description.schedule.spec.intervals[0].every == timedelta(seconds=3)
    assert description.schedule.policy.overlap == ScheduleOverlapPolicy.ALLOW_ALL
    assert description.schedule.policy.catchup_window == timedelta(minutes=1)
    assert description.schedule.state.note == "0:00:03, kept from Airflow"
    runs = until(
        lambda: len(found := scheduled(home, "by_time_interval")) >= 6 and found, "six runs", TIMEOUT
    )
    dates = [moment(run["logical_date"]) for run in runs]
    assert dates[-1] - dates[-3] == timedelta(seconds=6), "runs follow each other at the interval"
    assert [run["run_after"] for run in runs] == [run["logical_date"] for run in runs]
    until(lambda: scheduled(home, "by_time_interval")[3]["state"] == "success", "the fourth's end", TIMEOUT)

    async def by_schedule(client):
        found = client.list_workflows("AirflowDagId = 'by_time_interval'")
        return [workflow.id async for workflow in found if workflow.workflow_type.startswith("CreateDue")]

    assert with_client(clocked, by_schedule), "the search attribute finds them like runs"


def test_a_schedule_is_paused_changed_and_deleted_with_its_dag(clocked, home, tmp_path):
    started(clocked, "by_time_interval")
    airflow(clocked, "dags", "pause", "by_time_interval")
    until(lambda: described(clocked, "by_time_interval").schedule.state.paused, "a paused schedule", TIMEOUT)
    before = len(scheduled(home, "by_time_interval"))
    assert triggered(clocked, "by_time_interval") == 0
    assert len(scheduled(home, "by_time_interval")) == before
    airflow(clocked, "dags", "unpause", "by_time_interval")
    until(lambda: not described(clocked, "by_time_interval").schedule.state.paused, "an active one", TIMEOUT)
    until(lambda: len(scheduled(home, "by_time_interval")) >= before + 2, "two more runs", TIMEOUT)

    source = DAG_FILE.read_text()
    changed = source.replace("timedelta(seconds=3)", "'30 4 * * 1#1'").replace("by_time_", "changed_")
    path = tmp_path / "changed.py"
    path.write_text(source.replace("by_time_", "changed_"))
    assert started(clocked, "changed_interval", path).schedule.spec.intervals
    path.write_text(changed)
    assert clocked.run(path, dag_id="changed_interval").wait(timeout=TIMEOUT) == "success"
    spec = until(
        lambda: (found := described(clocked, "changed_interval").schedule.spec).calendars and found,
        "a changed schedule",
        TIMEOUT,
    )
    assert not spec.intervals
    assert spec.calendars[0].comment == "30 4 * * 1#1"
    assert spec.calendars[0].day_of_month[0].end == 7

    airflow(clocked, "dags", "delete", "--yes", "changed_interval")
    until(lambda: described(clocked, "changed_interval") is None, "no schedule", TIMEOUT)


def test_catchup_creates_every_run_that_airflow_would(clocked, home):
    description = started(clocked, "by_time_catchup")
    assert description.schedule.policy.overlap == ScheduleOverlapPolicy.BUFFER_ONE
    assert description.schedule.policy.catchup_window == timedelta(days=365)
    timetable = CronDataIntervalTimetable("0 2 * * *", timezone="Europe/Zurich")
    begin, end = (
        datetime(2026, 3, 25, 23, tzinfo=timezone.utc),
        datetime(2026, 3, 31, 22, tzinfo=timezone.utc),
    )
    restriction = TimeRestriction(coerce_datetime(begin), coerce_datetime(end), catchup=True)
    expected, interval = [], None
    while (
        info := timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)
    ) is not None:
        interval = info.data_interval
        expected.append((info.logical_date, interval.start, interval.end))
    assert len(expected) == 6, "one of them begins at a local time that is skipped"
    runs = until(
        lambda: (
            len(found := scheduled(home, "by_time_catchup")) == 6
            and all(run["state"] == "success" for run in found)
            and found
        ),
        "all runs",
        TIMEOUT,
    )
    columns = ("logical_date", "data_interval_start", "data_interval_end")
    assert [tuple(moment(run[column]) for column in columns) for run in runs] == expected
    ends = [run["end_date"] for run in runs]
    assert all(run["start_date"] >= end for run, end in zip(runs[1:], ends, strict=False)), "one at a time"
    assert triggered(clocked, "by_time_catchup") == 0, "no run is missing"


def test_without_catchup_only_the_latest_run_is_created(clocked, home):
    started(clocked, "by_time_latest")
    runs = until(lambda: scheduled(home, "by_time_latest"), "a run", TIMEOUT)
    assert triggered(clocked, "by_time_latest") == 0
    assert len(runs) == len(scheduled(home, "by_time_latest")) == 1
    now = datetime.now(timezone.utc)
    assert now - timedelta(days=32) < moment(runs[0]["data_interval_end"]) <= now


def test_the_doctor_lists_dags_that_no_schedule_can_express(clocked, home):
    assert clocked.run(DAG_FILE, dag_id="by_time_weekday").wait(timeout=TIMEOUT) == "success"
    until(
        lambda: query(home, "SELECT 1 FROM temporal_airflow_schedule WHERE dag_id = 'by_time_weekday'"),
        "a record of it",
        TIMEOUT,
    )
    assert described(clocked, "by_time_weekday") is None
    environment = {**os.environ, "TEMPORAL_AIRFLOW_HOME": str(home)}
    doctor = subprocess.run(
        [sys.executable, "-m", "temporal_airflow_nb.cli.main", "doctor", "--output", "json"],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    )
    found = {check["check"]: check for check in json.loads(doctor.stdout)["checks"]}["schedules"]
    assert found["state"] == "ok"
    reason = "cron expression '0 0 15W * *' asks for the weekday nearest to a day"
    assert f"by_time_weekday: {reason}" in found["detail"]
    assert "by_time_nothing" not in found["detail"]


def test_a_schedule_that_a_user_deleted_or_paused_is_restored(clocked):
    started(clocked, "by_time_latest")

    async def interfere(client):
        await client.get_schedule_handle(PREFIX + "by_time_latest").delete()
        await client.get_schedule_handle(PREFIX + "by_time_catchup").pause()

    with_client(clocked, interfere)
    until(lambda: described(clocked, "by_time_latest") is not None, "a new schedule", 180)
    until(lambda: not described(clocked, "by_time_catchup").schedule.state.paused, "an active one", 180)


def test_two_workers_create_each_run_once(clocked, home, tmp_path):
    started(clocked, "by_time_interval")
    log = tmp_path / "worker.log"
    environment = {
        **clocked.status()["env"],
        "TEMPORAL_NATIVE_SCHEDULING": "true",
        "AIRFLOW__CORE__ORCHESTRATOR": "temporal_airflow_nb.orchestrator.TemporalOrchestrator",
    }
    with worker(environment, log):
        before = len(scheduled(home, "by_time_interval"))
        runs = until(
            lambda: len(found := scheduled(home, "by_time_interval")) >= before + 5 and found,
            "runs",
            TIMEOUT,
        )
    dates = [moment(run["logical_date"]) for run in runs[-5:]]
    assert {later - earlier for earlier, later in itertools.pairwise(dates)} == {timedelta(seconds=3)}
    assert "Traceback" not in log.read_text()


def test_switching_native_scheduling_off_deletes_all_schedules(clocked, home, monkeypatch):
    started(clocked, "by_time_interval")
    clocked.stop()
    monkeypatch.delenv("TEMPORAL_NATIVE_SCHEDULING")
    with LocalStack(home) as stack:
        until(lambda: not query(home, "SELECT * FROM temporal_airflow_schedule"), "no rows", TIMEOUT)

        async def ids(client):
            return [schedule.id async for schedule in await client.list_schedules()]

        until(lambda: not with_client(stack, ids), "no schedules", TIMEOUT)
