"""Temporal Schedules beside stock schedulers: two of each process, on PostgreSQL."""

from __future__ import annotations

import json

import pytest

from tests.production.cluster import HERE, Cluster

# Processes start slowly on a busy machine.
pytestmark = pytest.mark.timeout(600)

NATIVE, BY_AIRFLOW, UNMANAGED = "clock_of_temporal", "clock_of_airflow", "clock_unmanaged"
SETTING = "TEMPORAL_NATIVE_SCHEDULING"


class NativelyScheduledCluster(Cluster):
    """A cluster with native scheduling."""

    def _services(self, *arguments):
        self.environment[SETTING] = "true"
        return super()._services(*arguments)


@pytest.fixture(scope="module")
def clocked(postgres, tmp_path_factory):
    with NativelyScheduledCluster(
        tmp_path_factory.mktemp("clocked"),
        dags=[HERE / "schedule_dags"],
        database_url=postgres.new_database(),
        schedulers=2,
        workers=2,
        settings={"temporal_airflow": {"dags": "*, !clock_unmanaged"}},
    ) as cluster:
        yield cluster


def scheduled_runs(cluster, dag_id):
    """Return a DAG's runs, latest first, each with the job of the scheduler that created it, or None."""
    return cluster.query(
        "SELECT run_id, creating_job_id, state FROM dag_run "
        f"WHERE dag_id = '{dag_id}' AND run_type = 'scheduled' ORDER BY logical_date DESC"
    )


def schedule_reasons(cluster):
    rows = cluster.query("SELECT dag_id, reason FROM temporal_airflow_schedule")
    return {row["dag_id"]: row["reason"] for row in rows}


def wait_for_more(cluster, dag_id, more=3):
    """Wait until a DAG has ``more`` new runs, the first of them successful; return the new runs."""
    before = {run["run_id"] for run in scheduled_runs(cluster, dag_id)}

    def found():
        new = [run for run in scheduled_runs(cluster, dag_id) if run["run_id"] not in before]
        return len(new) >= more and new[-1]["state"] == "success" and new

    return cluster.wait_for(found, f"{more} more runs of {dag_id}")


def test_schedules_and_schedulers_create_the_runs_of_their_dags(clocked):
    clocked.wait_for(lambda: len(schedule_reasons(clocked)) == 2, "records of both schedules")
    assert schedule_reasons(clocked)[NATIVE] is None
    assert "isn't a timedelta" in schedule_reasons(clocked)[BY_AIRFLOW]
    assert {run["creating_job_id"] for run in wait_for_more(clocked, NATIVE)} == {None}
    assert None not in {run["creating_job_id"] for run in wait_for_more(clocked, BY_AIRFLOW)}
    assert None not in {run["creating_job_id"] for run in wait_for_more(clocked, UNMANAGED, 2)}


def test_the_doctor_lists_the_dags_that_airflow_schedules(clocked):
    found = json.loads(clocked.airflow("temporal", "doctor", "--output", "json"))
    (check,) = [check for check in found["checks"] if check["check"] == "schedules"]
    assert check["state"] == "ok"
    assert check["detail"].startswith(
        "1 in Temporal; 1 with Airflow's scheduler:\nclock_of_airflow: interval"
    )


def test_only_a_worker_creates_the_runs_of_a_schedule(clocked):
    clocked.kill("worker", "worker-2")
    before = scheduled_runs(clocked, NATIVE)
    has_created = len(scheduled_runs(clocked, UNMANAGED))
    clocked.wait_for(
        lambda: len(scheduled_runs(clocked, UNMANAGED)) >= has_created + 2,
        "the schedulers to create runs meanwhile",
    )
    assert scheduled_runs(clocked, NATIVE)[0]["run_id"] == before[0]["run_id"]
    clocked.heal()
    assert {run["creating_job_id"] for run in wait_for_more(clocked, NATIVE)} == {None}


def test_airflow_creates_the_runs_when_native_scheduling_is_off(clocked):
    workers = [service for name, service in clocked.services.items() if name.startswith("worker")]
    clocked.stop("worker", "worker-2")
    for service in workers:
        service.env[SETTING] = "false"
    clocked.heal()
    clocked.wait_for(lambda: not schedule_reasons(clocked), "no schedules")
    assert None not in {run["creating_job_id"] for run in wait_for_more(clocked, NATIVE)[:2]}
