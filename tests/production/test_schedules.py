"""Temporal's Schedules beside stock schedulers: two of each process, on PostgreSQL."""

from __future__ import annotations

import json

import pytest

from tests.production.cluster import HERE, Cluster

# Processes start slowly on a busy machine.
pytestmark = pytest.mark.timeout(600)

NATIVE, BY_AIRFLOW, UNMANAGED = "clock_of_temporal", "clock_of_airflow", "clock_unmanaged"
SETTING = "TEMPORAL_NATIVE_SCHEDULING"


class Clocked(Cluster):
    """A cluster whose clock is Temporal."""

    def _services(self, *arguments):
        self.environment[SETTING] = "true"
        return super()._services(*arguments)


@pytest.fixture(scope="module")
def clocked(postgres, tmp_path_factory):
    with Clocked(
        tmp_path_factory.mktemp("clocked"),
        dags=[HERE / "schedule_dags"],
        database_url=postgres.new_database(),
        schedulers=2,
        workers=2,
        settings={"temporal_airflow": {"dags": "*, !clock_unmanaged"}},
    ) as cluster:
        yield cluster


def created(cluster, dag_id):
    """Return a DAG's runs, latest first, with the job that created each: a scheduler's, or none."""
    return cluster.query(
        "SELECT run_id, creating_job_id, state FROM dag_run "
        f"WHERE dag_id = '{dag_id}' AND run_type = 'scheduled' ORDER BY logical_date DESC"
    )


def clocks(cluster):
    rows = cluster.query("SELECT dag_id, reason FROM temporal_airflow_schedule")
    return {row["dag_id"]: row["reason"] for row in rows}


def has_more(cluster, dag_id, more=3):
    """Wait until a DAG has ``more`` runs than now, the first of which has ended well; return the new ones."""
    before = {run["run_id"] for run in created(cluster, dag_id)}

    def found():
        new = [run for run in created(cluster, dag_id) if run["run_id"] not in before]
        return len(new) >= more and new[-1]["state"] == "success" and new

    return cluster.wait_for(found, f"{more} more runs of {dag_id}")


def test_each_clock_creates_the_runs_of_its_dags(clocked):
    clocked.wait_for(lambda: len(clocks(clocked)) == 2, "both schedules looked at")
    assert clocks(clocked)[NATIVE] is None
    assert "isn't a timedelta" in clocks(clocked)[BY_AIRFLOW]
    assert {run["creating_job_id"] for run in has_more(clocked, NATIVE)} == {None}
    assert None not in {run["creating_job_id"] for run in has_more(clocked, BY_AIRFLOW)}
    assert None not in {run["creating_job_id"] for run in has_more(clocked, UNMANAGED, 2)}


def test_airflows_doctor_lists_what_stays_with_airflow(clocked):
    found = json.loads(clocked.airflow("temporal", "doctor", "--output", "json"))
    (check,) = [check for check in found["checks"] if check["check"] == "schedules"]
    assert check["state"] == "ok"
    assert check["detail"].startswith(
        "1 in Temporal; 1 with Airflow's scheduler:\nclock_of_airflow: interval"
    )


def test_runs_wait_for_a_worker_and_are_created_by_nobody_else(clocked):
    clocked.kill("worker", "worker-2")
    before = created(clocked, NATIVE)
    has_created = len(created(clocked, UNMANAGED))
    clocked.wait_for(
        lambda: len(created(clocked, UNMANAGED)) >= has_created + 2, "runs of schedulers that go on"
    )
    assert created(clocked, NATIVE)[0]["run_id"] == before[0]["run_id"]
    clocked.heal()
    assert {run["creating_job_id"] for run in has_more(clocked, NATIVE)} == {None}


def test_switched_off_airflow_is_the_clock(clocked):
    workers = [service for name, service in clocked.services.items() if name.startswith("worker")]
    clocked.stop("worker", "worker-2")
    for service in workers:
        service.env[SETTING] = "false"
    clocked.heal()
    clocked.wait_for(lambda: not clocks(clocked), "no schedules")
    assert None not in {run["creating_job_id"] for run in has_more(clocked, NATIVE)[:2]}
