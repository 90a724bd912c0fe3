"""User actions on runs: those that Temporal executes end like those of Airflow's executor."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benchmarks.airflow_api import ApiError
from tests.production.cluster import Cluster
from tests.production.driven_run import DrivenRun
from tests.production.execution_checks import assert_temporal_executed, workflow_states

# Processes start slowly on a busy machine.
pytestmark = pytest.mark.timeout(600)


def in_both(cluster: Cluster, dag_id: str, act: Callable[[DrivenRun], Any]) -> Any:
    """Do the same with a run of Temporal and with one of Airflow; return the outcome, which must be the same."""
    with ThreadPoolExecutor(2) as threads:
        of_temporal, of_airflow = threads.map(
            lambda name: act(DrivenRun(cluster, name)), [dag_id, f"native_{dag_id}"]
        )
    assert of_temporal == of_airflow
    return of_temporal


@pytest.mark.postgres
def test_a_running_task_is_cleared(cluster):
    def act(run):
        run.until_begun("waits")
        cleared = run.clear("waits")
        run.until_begun("waits", times=2)
        run.open_gate()
        return cleared, run.wait_for_end()

    cleared, outcome = in_both(cluster, "acted", act)
    assert cleared == ["waits"]
    assert outcome["run"] == "success"
    assert outcome["executions"] == {"prepares": 1, "waits": 2, "after": 1, "other": 1}


@pytest.mark.postgres
def test_a_finished_task_of_a_running_run_is_cleared_with_its_downstreams(cluster):
    def act(run):
        run.until_begun("waits", "other")
        run.until_states(other="success")
        cleared = run.clear("prepares", include_downstream=True)
        run.until_begun("waits", "other", times=2)
        run.open_gate()
        return cleared, run.wait_for_end()

    cleared, outcome = in_both(cluster, "acted", act)
    assert cleared == ["after", "other", "prepares", "waits"]
    assert outcome["run"] == "success"
    assert outcome["executions"] == {"prepares": 2, "waits": 2, "after": 1, "other": 2}


def test_a_running_run_is_cleared(cluster):
    def act(run):
        run.until_begun("waits", "other")
        run.until_states(other="success")
        run.clear()
        run.until_begun("waits", times=2)
        run.open_gate()
        return run.wait_for_end()

    outcome = in_both(cluster, "acted", act)
    assert outcome["run"] == "success"
    assert outcome["executions"] == {"prepares": 2, "waits": 2, "after": 1, "other": 2}


@pytest.mark.postgres
def test_a_task_of_a_finished_run_is_cleared(cluster):
    def act(run):
        run.open_gate()
        run.wait_for_end()
        cleared = run.clear("waits", include_downstream=True)
        run.until_begun("after", times=2)
        return cleared, run.wait_for_end()

    cleared, outcome = in_both(cluster, "acted", act)
    assert cleared == ["after", "waits"]
    assert outcome["run"] == "success"
    assert outcome["executions"] == {"prepares": 1, "waits": 2, "after": 2, "other": 1}


def test_a_task_is_cleared_from_the_command_line(cluster):
    run = DrivenRun(cluster, "swept")
    assert_temporal_executed(cluster, "swept", run.run_id, "first", "second")
    cluster.airflow("tasks", "clear", "swept", "--task-regex", "second", "--yes")
    run.until_begun("second", times=2)
    assert_temporal_executed(cluster, "swept", run.run_id, "first", "second", tries={"second": 2}, times=2)


@pytest.mark.postgres
@pytest.mark.parametrize("state", ["success", "failed", "skipped"])
def test_a_running_task_is_marked(cluster, state):
    def act(run):
        run.until_begun("waits", "other")
        run.mark(state, "waits")
        return run.wait_for_end()

    outcome = in_both(cluster, "acted", act)
    assert outcome["tasks"]["waits"] == (state, 1)
    assert outcome["run"] == ("failed" if state == "failed" else "success")


def test_a_task_that_has_not_started_is_marked(cluster):
    def act(run):
        run.until_begun("waits", "other")
        run.mark("success", "after")
        run.open_gate()
        return run.wait_for_end()

    outcome = in_both(cluster, "acted", act)
    assert outcome["executions"] == {"prepares": 1, "waits": 1, "other": 1}


def test_a_failed_task_is_marked_before_its_retry(cluster):
    def act(run):
        run.until_states(fails="up_for_retry")
        run.mark("success", "fails")
        return run.wait_for_end()

    outcome = in_both(cluster, "retried", act)
    assert outcome["run"] == "success"
    assert outcome["executions"] == {"fails": 1, "after": 1}


def test_a_failed_task_is_cleared_before_its_retry(cluster):
    def act(run):
        run.until_states(fails="up_for_retry")
        run.clear("fails")
        run.until_begun("fails", times=2)
        run.until_states(fails="up_for_retry")
        run.mark("failed", "fails")
        return run.wait_for_end()

    outcome = in_both(cluster, "retried", act)
    assert outcome["run"] == "failed"
    assert outcome["tasks"]["after"][0] == "upstream_failed"


@pytest.mark.postgres
@pytest.mark.parametrize("state", ["success", "failed"])
def test_a_running_run_is_marked(cluster, state):
    def act(run):
        run.until_begun("waits", "other")
        run.until_states(other="success")
        run.mark(state)
        return run.wait_for_end()

    outcome = in_both(cluster, "acted", act)
    assert outcome["run"] == state
    assert outcome["executions"] == {"prepares": 1, "waits": 1, "other": 1}


@pytest.mark.postgres
def test_a_run_can_be_deleted_after_its_end(cluster):
    def act(run):
        run.until_begun("waits")
        assert cluster.run_state(run.dag_id, run.run_id) == "running", run.dag_id
        with pytest.raises(ApiError) as refused:
            cluster.api("DELETE", run.path)
        run.mark("failed")
        run.wait_for_end()
        cluster.api("DELETE", run.path)
        with pytest.raises(ApiError) as gone:
            cluster.run(run.dag_id, run.run_id)
        return refused.value.status, gone.value.status

    assert in_both(cluster, "acted", act) == (409, 404)


def test_a_queued_run_is_deleted(cluster):
    cluster.pause("grows")
    run_id = cluster.trigger("grows")
    cluster.api("DELETE", f"dags/grows/dagRuns/{run_id}")
    cluster.pause("grows", False)
    assert_temporal_executed(cluster, "grows", cluster.trigger("grows"), "grain")
    assert cluster.executions("grows", run_id) == []
    assert workflow_states(cluster, "grows", run_id) == []


def test_a_dag_is_deleted_while_a_run_waits(cluster):
    runs = [DrivenRun(cluster, dag_id) for dag_id in ("doomed", "native_doomed")]
    for run in runs:
        run.until_states(fails="up_for_retry")
    (cluster.dags_folder / "doomed.py").unlink()
    stale = "SELECT dag_id FROM dag WHERE dag_id LIKE '%doomed' AND is_stale"
    cluster.wait_for(lambda: len(cluster.query(stale)) == 2, "the DAG processor to notice")
    for run in runs:
        cluster.api("DELETE", f"dags/{run.dag_id}")
        with pytest.raises(ApiError) as gone:
            cluster.run(run.dag_id, run.run_id)
        assert gone.value.status == 404
    cluster.wait_for(runs[0].is_closed, "the end of its workflow")


@pytest.mark.postgres
def test_a_dag_is_paused(cluster):
    def act(run):
        run.until_begun("waits", "other")
        run.until_states(other="success")
        cluster.pause(run.dag_id)
        run.open_gate()
        run.until_states(waits="success")
        # The end of another run shows that tasks are being started meanwhile, but not those of the paused DAG.
        cluster.wait_for_end("simple", cluster.trigger("simple"))
        before = cluster.tasks(run.dag_id, run.run_id)["after"]
        cluster.pause(run.dag_id, False)
        return before in (None, "scheduled"), run.wait_for_end()

    waited, outcome = in_both(cluster, "acted", act)
    assert waited
    assert outcome["run"] == "success"


def test_a_dag_is_paused_from_the_command_line(cluster):
    run = DrivenRun(cluster, "acted")
    run.until_begun("waits", "other")
    cluster.airflow("dags", "pause", "acted", "--yes")
    run.open_gate()
    run.until_states(waits="success", other="success")
    cluster.wait_for_end("simple", cluster.trigger("simple"))
    assert run.executions()["after"] == 0
    cluster.airflow("dags", "unpause", "acted", "--yes")
    assert run.wait_for_end()["executions"]["after"] == 1


@pytest.mark.postgres
def test_questions_are_answered(cluster):
    def act(run):
        run.until_states(asks="awaiting_input", enters="awaiting_input")
        if run.is_native:
            # Airflow fails a task that is answered before the scheduler has noticed the end of the task's process.
            cluster.wait_for_end("native_simple", cluster.trigger("native_simple"))
        for task_id, answer in {
            "asks": {"chosen_options": ["that"]},
            "enters": {"chosen_options": ["OK"], "params_input": {"number": 5}},
        }.items():
            cluster.api("PATCH", f"{run.path}/taskInstances/{task_id}/-1/hitlDetails", answer)
        outcome = run.wait_for_end()
        given = [
            cluster.api("GET", f"{run.path}/taskInstances/{task_id}/xcomEntries/return_value")["value"]
            for task_id in ("asks", "enters")
        ]
        return outcome, [(value["chosen_options"], value["params_input"]) for value in given]

    outcome, values = in_both(cluster, "asked", act)
    assert outcome["run"] == "success"
    assert values == [(["that"], {}), (["OK"], {"number": 5})]


def test_notes_are_added_to_a_running_run(cluster):
    def act(run):
        run.until_begun("waits", "other")
        cluster.api("PATCH", run.path, {"note": "of the run"})
        cluster.api("PATCH", f"{run.path}/taskInstances/waits", {"note": "of the task"})
        run.open_gate()
        notes = [cluster.run(run.dag_id, run.run_id)["note"]]
        notes += [ti["note"] for ti in cluster.instances(run.dag_id, run.run_id)]
        return notes, run.wait_for_end()

    notes, outcome = in_both(cluster, "acted", act)
    assert notes == ["of the run", None, None, None, "of the task"]
    assert outcome["run"] == "success"


@pytest.mark.postgres
def test_a_pool_is_made_larger(cluster):
    def act(run):
        pool = f"{run.dag_id.removesuffix('pooled')}narrow"
        run.until_any_has_begun("one", "two")
        first = run.executions()
        body = {"name": pool, "slots": 2, "description": "", "include_deferred": False}
        cluster.api("PATCH", f"pools/{pool}", body)
        run.until_begun("one", "two")
        run.open_gate()
        return first.total(), run.wait_for_end()

    for name in ("narrow", "native_narrow"):
        cluster.api("POST", "pools", {"name": name, "slots": 1})
    begun, outcome = in_both(cluster, "pooled", act)
    assert begun == 1
    assert outcome["run"] == "success"


@pytest.mark.postgres
def test_the_limit_of_active_tasks_is_raised(cluster):
    runs = [DrivenRun(cluster, dag_id) for dag_id in ("limited", "native_limited")]
    for run in runs:
        run.until_any_has_begun("one", "two")
    assert [run.executions().total() for run in runs] == [1, 1]
    file = cluster.dags_folder / "limit.py"
    file.write_text(file.read_text().replace("LIMIT = 1", "LIMIT = 2"))
    for run in runs:
        run.until_begun("one", "two")
        run.open_gate()
    assert {run.wait_for_end()["run"] for run in runs} == {"success"}


def test_the_file_of_a_dag_is_missing_for_a_while(cluster):
    file = cluster.dags_folder / "vanishing.py"
    text = file.read_text()
    runs = [DrivenRun(cluster, dag_id) for dag_id in ("vanishing", "native_vanishing")]
    try:
        for run in runs:
            run.until_begun("waits")
        file.unlink()
        for run in runs:
            cluster.wait_for(
                lambda dag_id=run.dag_id: cluster.api("GET", f"dags/{dag_id}")["is_stale"],
                "the DAG processor to miss the file",
            )
            run.open_gate()
            run.until_states(waits="success")
        # The end of another run shows that tasks are being started meanwhile, but not those of these DAGs.
        cluster.wait_for_end("simple", cluster.trigger("simple"))
        states = [cluster.tasks(run.dag_id, run.run_id)["after"] for run in runs]
        assert all(state in (None, "scheduled") for state in states), states
    finally:
        file.write_text(text)
    of_temporal, of_airflow = (run.wait_for_end() for run in runs)
    assert of_temporal == of_airflow
    assert of_temporal["run"] == "success"
