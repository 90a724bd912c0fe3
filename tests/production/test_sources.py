"""Runs from every source that Airflow has: Temporal executes each of them once."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import pytest

from tests.production.cluster import Cluster
from tests.production.execution_checks import assert_temporal_executed, executed_by, workflow_states

# Processes start slowly on a busy machine.
pytestmark = pytest.mark.timeout(600)

DAYS = "2025-03-0{}T00:00:00Z".format


def new_id() -> str:
    return f"run-{uuid.uuid4().hex[:8]}"


def ids(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    return [run["dag_run_id"] for run in runs]


def states(cluster: Cluster, dag_id: str) -> list[str]:
    return [run["state"] for run in cluster.runs(dag_id)]


def new_runs(cluster: Cluster, dag_id: str, number: int, before: Iterable[str] = ()) -> list[str]:
    """Wait until a DAG has ``number`` runs besides those ``before``; return their ids."""

    def found() -> list[str]:
        return [run_id for run_id in ids(cluster.runs(dag_id)) if run_id not in before]

    cluster.wait_for(lambda: len(found()) >= number, f"{number} runs of {dag_id}")
    assert len(found()) == number
    return found()


def most_at_once(runs: Iterable[Mapping[str, Any]]) -> int:
    """Return the highest number of these ended runs that ran at the same time."""
    changes = [(datetime.fromisoformat(run["start_date"]), 1) for run in runs]
    changes += [(datetime.fromisoformat(run["end_date"]), -1) for run in runs]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def let_pass(cluster: Cluster, dag_id: str, *run_ids: str) -> None:
    """Open the gate of these runs, or of all runs of the DAG."""
    for name in [f"{run_id}.open" for run_id in run_ids] or ["open"]:
        cluster.gate(dag_id, name).touch()


@pytest.mark.postgres
def test_a_run_from_the_rest_api(cluster):
    run_id = cluster.trigger("simple", logical_date="2025-01-01T00:00:00Z", conf={"some": "conf"})
    assert_temporal_executed(cluster, "simple", run_id, "first", "second")
    assert cluster.tasks("simple", run_id) == {"first": "success", "second": "success"}
    assert cluster.run("simple", run_id)["conf"] == {"some": "conf"}


def test_a_run_from_the_trigger_button_of_the_ui(cluster):
    body = {
        "conf": {},
        "data_interval_end": None,
        "data_interval_start": None,
        "logical_date": "2025-01-02T03:04:05.678Z",
        "partition_key": None,
    }
    run_id = cluster.api("POST", "dags/simple/dagRuns", body)["dag_run_id"]
    assert_temporal_executed(cluster, "simple", run_id, "first", "second")


def test_a_run_from_the_command_line(cluster):
    run_id = new_id()
    cluster.airflow("dags", "trigger", "simple", "--run-id", run_id)
    assert_temporal_executed(cluster, "simple", run_id, "first", "second")


def test_runs_at_an_interval(cluster):
    cluster.pause("often", False)
    cluster.wait_for(lambda: len(cluster.runs("often")) >= 2, "two scheduled runs")
    for run in cluster.runs("often")[:2]:
        assert run["run_type"] == "scheduled"
        assert_temporal_executed(cluster, "often", run["dag_run_id"], "only")
    cluster.pause("often")


@pytest.mark.postgres
def test_a_cron_catches_up_within_the_limit_of_active_runs(cluster):
    cluster.pause("caught_up", False)
    cluster.wait_for(
        lambda: states(cluster, "caught_up").count("running") == 2, "two runs that wait at the gate"
    )
    assert states(cluster, "caught_up") == ["running", "running"]
    let_pass(cluster, "caught_up")
    run_ids = new_runs(cluster, "caught_up", 4)
    for run_id in run_ids:
        assert_temporal_executed(cluster, "caught_up", run_id, "waits", "ends")
    runs = cluster.runs("caught_up")
    assert [run["logical_date"] for run in runs] == [DAYS(day) for day in (1, 2, 3, 4)]
    assert most_at_once(runs) == 2


def test_runs_of_a_plugins_timetable(cluster):
    cluster.pause("by_own_timetable", False)
    for run_id in new_runs(cluster, "by_own_timetable", 3):
        assert_temporal_executed(cluster, "by_own_timetable", run_id, "only")
    dates = [run["logical_date"] for run in cluster.runs("by_own_timetable")]
    assert dates == ["2025-03-05T00:00:00Z", "2025-03-07T00:00:00Z", "2025-03-11T00:00:00Z"]


@pytest.mark.postgres
def test_runs_triggered_by_assets(cluster):
    before = {dag_id: ids(cluster.runs(dag_id)) for dag_id in ("mills", "bakes")}
    assert_temporal_executed(cluster, "grows", cluster.trigger("grows"), "grain")
    for dag_id, task_id in {"mills": "flour", "bakes": "bread"}.items():
        (run_id,) = new_runs(cluster, dag_id, 1, before[dag_id])
        assert_temporal_executed(cluster, dag_id, run_id, task_id)
        assert cluster.run(dag_id, run_id)["run_type"] == "asset_triggered"


def test_a_run_from_an_asset_event_of_the_rest_api(cluster):
    before = ids(cluster.runs("mills"))
    cluster.api("POST", "assets/events", {"asset_id": asset_id(cluster, "production://grain")})
    (run_id,) = new_runs(cluster, "mills", 1, before)
    assert_temporal_executed(cluster, "mills", run_id, "flour")


def test_runs_of_partitioned_assets(cluster):
    assert_temporal_executed(cluster, "in_parts", cluster.trigger("in_parts"), "emits")
    for run_id in new_runs(cluster, "of_each_part", 2):
        assert_temporal_executed(cluster, "of_each_part", run_id, "only")
    assert {run["partition_key"] for run in cluster.runs("of_each_part")} == {"north", "south"}


def test_runs_of_time_partitions(cluster):
    cluster.pause("partitioned_by_time", False)
    for run_id in new_runs(cluster, "partitioned_by_time", 2):
        assert_temporal_executed(cluster, "partitioned_by_time", run_id, "only")


@pytest.mark.postgres
def test_a_run_that_materializes_an_asset(cluster):
    body = {"logical_date": None}
    asset = asset_id(cluster, "made_to_order")
    run = cluster.api("POST", f"assets/{asset}/materialize", body)
    assert_temporal_executed(cluster, run["dag_id"], run["dag_run_id"], "made_to_order")
    assert run["run_type"] == "asset_materialization"


def asset_id(cluster: Cluster, uri: str) -> int:
    assets = cluster.api("GET", "assets?limit=100")["assets"]
    return next(asset["id"] for asset in assets if asset["uri"].rstrip("/") == uri)


@pytest.mark.postgres
def test_a_backfill_keeps_its_limit_and_can_be_paused(cluster):
    body = {"dag_id": "backfilled", "from_date": DAYS(1), "to_date": DAYS(5), "max_active_runs": 2}
    backfill = cluster.api("POST", "backfills", body)["id"]
    run_ids = new_runs(cluster, "backfilled", 5)
    cluster.wait_for(
        lambda: states(cluster, "backfilled").count("running") == 2, "two runs that wait at the gate"
    )
    cluster.api("PUT", f"backfills/{backfill}/pause")
    let_pass(cluster, "backfilled", *run_ids[:2])
    for run_id in run_ids[:2]:
        assert_temporal_executed(cluster, "backfilled", run_id, "waits", "ends")
    # The end of another run shows that runs are being started meanwhile, but not those of the paused backfill.
    assert_temporal_executed(cluster, "simple", cluster.trigger("simple"), "first", "second")
    assert states(cluster, "backfilled") == ["success"] * 2 + ["queued"] * 3
    let_pass(cluster, "backfilled", *run_ids)
    cluster.api("PUT", f"backfills/{backfill}/unpause")
    for run_id in run_ids:
        assert_temporal_executed(cluster, "backfilled", run_id, "waits", "ends")
    assert most_at_once(cluster.runs("backfilled")) == 2
    assert {run["run_type"] for run in cluster.runs("backfilled")} == {"backfill"}


def test_a_backfill_from_the_command_line_repeats_completed_runs(cluster):
    days = ("--from-date", DAYS(7), "--to-date", DAYS(8))
    run_id = cluster.trigger("backfilled", logical_date=DAYS(7))
    let_pass(cluster, "backfilled", run_id)
    assert_temporal_executed(cluster, "backfilled", run_id, "waits", "ends")
    before = ids(cluster.runs("backfilled"))
    # Airflow allows one unfinished backfill for each DAG.
    unfinished = "SELECT id FROM backfill WHERE completed_at IS NULL"
    cluster.wait_for(lambda: not cluster.query(unfinished), "the end of other backfills")

    again = ("--reprocess-behavior", "completed")
    cluster.airflow("backfill", "create", "--dag-id", "backfilled", *days, *again)
    (new_run_id,) = new_runs(cluster, "backfilled", 1, before)
    let_pass(cluster, "backfilled", new_run_id)
    assert_temporal_executed(cluster, "backfilled", new_run_id, "waits", "ends")
    cluster.wait_for(
        lambda: len(executed_by(cluster, "backfilled", run_id).get("ends", [])) == 2, "the second time"
    )
    twice = {"waits": 2, "ends": 2}
    assert_temporal_executed(cluster, "backfilled", run_id, "waits", "ends", tries=twice, times=2)


@pytest.mark.parametrize("dag_id", ["triggers", "triggers_and_waits"])
def test_a_run_from_a_trigger_operator(cluster, dag_id):
    run_id = cluster.trigger(dag_id)
    assert_temporal_executed(cluster, dag_id, run_id, "after")
    assert_temporal_executed(cluster, "simple", f"{run_id}-of-{dag_id}", "first", "second")


@pytest.mark.postgres
def test_a_run_from_a_trigger_operator_that_defers(cluster):
    run_id = cluster.trigger("triggers_and_defers")
    assert_temporal_executed(cluster, "triggers_and_defers", run_id, "after")
    assert_temporal_executed(cluster, "simple", f"{run_id}-of-triggers_and_defers", "first", "second")


@pytest.mark.postgres
def test_a_finished_run_is_cleared(cluster):
    run_id = cluster.trigger("simple")
    assert_temporal_executed(cluster, "simple", run_id, "first", "second")
    cluster.api("POST", f"dags/simple/dagRuns/{run_id}/clear", {"dry_run": False})
    twice = {"first": 2, "second": 2}
    cluster.wait_for(
        lambda: len(executed_by(cluster, "simple", run_id).get("second", [])) == 2, "the second time"
    )
    assert_temporal_executed(cluster, "simple", run_id, "first", "second", tries=twice, times=2)
    assert [ti["try_number"] for ti in cluster.instances("simple", run_id)] == [2, 2]


def test_failed_tasks_of_a_finished_run_are_cleared(cluster):
    run_id = cluster.trigger("fails_once")
    assert_temporal_executed(cluster, "fails_once", run_id, "before", "fails", state="failed")
    assert cluster.tasks("fails_once", run_id) == {
        "before": "success",
        "fails": "failed",
        "after": "upstream_failed",
    }
    cluster.api("POST", f"dags/fails_once/dagRuns/{run_id}/clear", {"dry_run": False, "only_failed": True})
    cluster.wait_for(lambda: executed_by(cluster, "fails_once", run_id).get("after"), "the second try")
    assert_temporal_executed(
        cluster, "fails_once", run_id, "before", "fails", "after", tries={"fails": 2}, times=2
    )


def test_runs_wait_while_the_limit_of_active_runs_is_reached(cluster):
    run_ids = [cluster.trigger("two_at_once") for _ in range(4)]
    cluster.wait_for(
        lambda: states(cluster, "two_at_once").count("running") == 2, "two runs that wait at the gate"
    )
    first = ids(run for run in cluster.runs("two_at_once") if run["state"] == "running")
    assert states(cluster, "two_at_once").count("queued") == 2
    let_pass(cluster, "two_at_once", *first)
    for run_id in first:
        assert_temporal_executed(cluster, "two_at_once", run_id, "waits", "ends")
    let_pass(cluster, "two_at_once")
    for run_id in run_ids:
        assert_temporal_executed(cluster, "two_at_once", run_id, "waits", "ends")
    assert most_at_once(cluster.runs("two_at_once")) == 2


@pytest.mark.postgres
def test_a_run_of_a_paused_dag_waits(cluster):
    cluster.pause("grows")
    run_id = cluster.trigger("grows")
    # The end of another run shows that runs are being started meanwhile, but not this one.
    assert_temporal_executed(cluster, "simple", cluster.trigger("simple"), "first", "second")
    assert cluster.run_state("grows", run_id) == "queued"
    assert workflow_states(cluster, "grows", run_id) == []
    cluster.pause("grows", False)
    assert_temporal_executed(cluster, "grows", run_id, "grain")
