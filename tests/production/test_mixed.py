"""Runs of Temporal and of Airflow's executor in one Airflow: each has one owner, and all make progress."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.production.cluster import ORCHESTRATOR
from tests.production.execution_checks import (
    assert_airflow_executed,
    assert_temporal_executed,
    executed_by,
    workflow_states,
)

# Processes start slowly on a busy machine.
pytestmark = pytest.mark.timeout(600)

# Several times the number of runs that a scheduler handles in one loop, which is 20.
CROWD = 80


def test_runs_of_both_execute_side_by_side(cluster):
    run_ids = [(cluster.trigger("simple"), cluster.trigger("native_simple")) for _ in range(3)]
    for of_temporal, of_airflow in run_ids:
        assert_temporal_executed(cluster, "simple", of_temporal, "first", "second")
        assert_airflow_executed(cluster, "native_simple", of_airflow, "first", "second")


@pytest.mark.postgres(only=True)
def test_two_schedulers_and_two_workers_share_the_work(cluster):
    # A worker runs 8 tasks at a time.
    run_ids = [cluster.trigger("held") for _ in range(12)]
    for run_id in run_ids:
        cluster.wait_for(
            lambda run_id=run_id: "waits" in executed_by(cluster, "held", run_id),
            f"{run_id} to wait at the gate",
        )
    workers = {cluster.services[name].pids[-1] for name in ("worker", "worker-2")}
    ancestors = {
        pid for run_id in run_ids for line in cluster.executions("held", run_id) for pid in line["ancestors"]
    }
    assert workers <= ancestors
    schedulers = "SELECT id FROM job WHERE job_type = 'SchedulerJob' AND state = 'running'"
    assert len(cluster.query(schedulers)) >= 2
    for run_id in run_ids:
        cluster.gate("held", f"{run_id}.open").touch()
    for run_id in run_ids:
        assert_temporal_executed(cluster, "held", run_id, "before", "waits", "after")


@pytest.mark.postgres(only=True)
def test_many_runs_of_temporal_do_not_starve_other_runs(cluster):
    cluster.api("POST", "pools", {"name": "crowd", "slots": 0})
    with ThreadPoolExecutor(4) as threads:
        run_ids = list(threads.map(lambda _: cluster.trigger("crowd"), range(CROWD)))

    def running() -> int:
        states = "SELECT run_id FROM dag_run WHERE dag_id = 'crowd' AND state = 'running'"
        return len(cluster.query(states))

    cluster.wait_for(lambda: running() == CROWD, f"{CROWD} runs that wait for a slot")
    for _ in range(3):
        assert_airflow_executed(cluster, "native_simple", cluster.trigger("native_simple"), "first", "second")
    assert running() == CROWD

    body = {"name": "crowd", "slots": 32, "description": "", "include_deferred": False}
    cluster.api("PATCH", "pools/crowd", body)
    for run_id in run_ids:
        assert cluster.wait_for_end("crowd", run_id) == "success"
        assert executed_by(cluster, "crowd", run_id) == {"only": ["worker"]}
    for run_id in (run_ids[0], run_ids[-1]):
        assert_temporal_executed(cluster, "crowd", run_id, "only")


@pytest.fixture
def switch(cluster):
    """Return a function that switches Temporal off or on; at the end of the test it is on again."""

    schedulers = [name for name in cluster.services if name.startswith("scheduler")]
    others = [name for name in cluster.services if name.startswith(("api-server", "worker"))]
    active = ORCHESTRATOR

    def switch(orchestrator):
        nonlocal active
        active = orchestrator
        cluster.write_config(core={"orchestrator": orchestrator})
        # Schedulers first: a scheduler waits for its tasks, which report their end to the API server.
        cluster.stop(*schedulers)
        cluster.stop(*others)
        cluster.start(*others, *schedulers)
        cluster.wait_until_ready()

    yield switch
    if active != ORCHESTRATOR:
        switch(ORCHESTRATOR)


@pytest.mark.postgres
def test_runs_keep_their_owner_when_temporal_is_switched_off_and_on(cluster, switch):
    def start() -> str:
        run_id = cluster.trigger("paced")
        cluster.wait_for(lambda: "first" in executed_by(cluster, "paced", run_id), f"{run_id} to begin")
        cluster.wait_for(
            lambda: cluster.tasks("paced", run_id)["waits"] == "up_for_reschedule", f"{run_id} to wait"
        )
        return run_id

    def end(run_id: str, executed) -> None:
        cluster.gate("paced", f"{run_id}.open").touch()
        executed(cluster, "paced", run_id, "first", "last")

    managed = [start(), start()]
    switch("DefaultOrchestrator")
    native = [start(), start()]
    assert [workflow_states(cluster, "paced", run_id) for run_id in native] == [[], []]
    end(managed[0], assert_temporal_executed)
    end(native[0], assert_airflow_executed)

    switch(ORCHESTRATOR)
    managed_again = start()
    end(native[1], assert_airflow_executed)
    end(managed[1], assert_temporal_executed)
    end(managed_again, assert_temporal_executed)
