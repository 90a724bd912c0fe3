"""The workflow in Temporal: history, queries, search attributes, replay."""

from __future__ import annotations

import base64
import inspect
import json

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, Worker, _workflow

from temporal_airflow_nb.orchestration.workflow.deep_workflow import ExecuteAirflowDagDeepWorkflow
from temporal_airflow_nb.orchestration.workflow.grid_encoding import unpack
from tests.support.stack_helpers import DAGS, in_a_loop, states, until, with_client


def history_of(stack, run) -> WorkflowHistory:
    return with_client(stack, lambda client: client.get_workflow_handle(run.workflow_id).fetch_history())


@pytest.fixture(scope="module")
def finished(stack):
    run = stack.run(DAGS / "waves.py")
    assert run.wait(timeout=120) == "success"
    return run


def test_the_sdk_reads_the_deadlock_timeout_where_the_worker_sets_it():
    source = inspect.getsource(_workflow._WorkflowWorker)
    assert "self._deadlock_timeout_seconds = None if self._debug_mode else 2" in source
    assert "_workflow_worker" in inspect.getsource(Worker._init_from_config)


def test_a_history_replays(stack, finished):
    history = history_of(stack, finished)
    in_a_loop(Replayer(workflows=[ExecuteAirflowDagDeepWorkflow]).replay_workflow(history))


def test_a_history_of_an_older_version_replays(stack, finished):
    """Its passes returned no times, and it doesn't know the structure of its DAG."""
    history = json.loads(history_of(stack, finished).to_json())
    for event in history["events"]:
        details = event.get("markerRecordedEventAttributes", {}).get("details", {})
        for payload in details.get("result", {}).get("payloads", ()):
            result = json.loads(base64.b64decode(payload.get("data", "")) or "null")
            if isinstance(result, dict):
                older = {
                    name: value
                    for name, value in result.items()
                    if name not in ("structure", "run", "rows", "former")
                }
                older |= {"changed": [row[:4] for row in older["changed"]]} if "changed" in older else {}
                payload["data"] = base64.b64encode(json.dumps(older).encode()).decode()
    older_history = WorkflowHistory.from_json(finished.workflow_id, history)
    in_a_loop(Replayer(workflows=[ExecuteAirflowDagDeepWorkflow]).replay_workflow(older_history))


def test_each_try_is_one_activity_with_a_summary(stack, finished):
    scheduled = [
        event
        for event in history_of(stack, finished).events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]
    assert len(scheduled) == 14, "numbers, twelve squares and a total; the empty task needs no activity"
    summaries = sorted(json.loads(event.user_metadata.summary.data) for event in scheduled)
    assert summaries[0] == "numbers · try 1 · @task"
    assert "square[3] · try 1 · @task" in summaries


def test_queries_agree_with_the_database(stack, finished):
    async def query(client):
        handle = client.get_workflow_handle(finished.workflow_id)
        return await handle.query("task_states"), await handle.query("progress")

    task_states, progress = with_client(stack, query)
    tasks = finished.tasks
    database = {
        (task_id, map_index): (state, tries)
        for task_id, map_index, state, tries in zip(
            tasks["task_id"], tasks["map_index"], tasks["state"], tasks["try_number"], strict=True
        )
    }
    assert {
        (ti["task_id"], ti["map_index"]): (ti["state"], ti["try_number"]) for ti in task_states
    } == database
    assert progress == {
        "dag_id": "waves",
        "run_id": finished.run_id,
        "state": "success",
        "tasks": {"success": 15},
    }


def test_search_attributes_find_a_run(stack, finished):
    async def search(client):
        query = f"AirflowDagId = 'waves' AND AirflowRunId = '{finished.run_id}' AND AirflowState = 'success'"
        return [found.id async for found in client.list_workflows(query)]

    assert until(lambda: with_client(stack, search), "the run is found") == [finished.workflow_id]


def test_no_user_value_enters_the_history(stack, tmp_path):
    secret = "s3cr3t-1f0c4e7b"
    conf = {"trace": str(tmp_path / secret), "seconds": 0}
    run = stack.run(DAGS / "interrupted.py", conf=conf)
    assert run.wait(timeout=60) == "success"
    assert secret not in history_of(stack, run).to_json()


def test_a_long_run_continues_as_new(tmp_path, monkeypatch):
    from temporal_airflow_nb import LocalStack

    monkeypatch.setenv("TEMPORAL_AIRFLOW_HISTORY_EVENTS", "50")
    with LocalStack(tmp_path / "home") as stack:
        run = stack.run(DAGS / "waves.py")
        assert run.wait(timeout=120) == "success"
        assert set(states(run).values()) == {"success"}
        grid = with_client(stack, lambda client: client.get_workflow_handle(run.workflow_id).query("grid"))
        rows = unpack(grid["tasks"])
        assert len(rows) == 15
        assert all(row[7] for row in rows), "each row has its end, also those from an earlier execution"

        async def executions(client):
            query = f"WorkflowId = '{run.workflow_id}'"
            found = [execution async for execution in client.list_workflows(query)]
            return [await client.get_workflow_handle(e.id, run_id=e.run_id).fetch_history() for e in found]

        histories = with_client(stack, executions)
        assert run.events["execution"].nunique() == len(histories) > 1
        assert max(len(history.events) for history in histories) < 150
        replayer = Replayer(workflows=[ExecuteAirflowDagDeepWorkflow])
        for history in histories:
            in_a_loop(replayer.replay_workflow(history))
