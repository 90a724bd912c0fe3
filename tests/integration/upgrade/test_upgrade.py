"""Check that a stack continues the state of an earlier version.

``record.py`` makes the recordings and says what they hold: the two databases, settings and DAG files of a stack, and
the histories of its workflows. Recorded tasks wait for a file; the tests create it before the stack starts, as if it
had come while no stack ran.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import gzip
import json
import sqlite3
import tarfile
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from temporal_airflow_nb import LocalStack, Run
from temporal_airflow_nb.orchestration.schedules.workflow import CreateDueDagRunsWorkflow
from temporal_airflow_nb.orchestration.workflow import deep_workflow, models
from tests.integration.upgrade.record import facts, fire_schedule, rows, states
from tests.support.waiting import until

RECORDINGS = sorted(path for path in (Path(__file__).parent / "recorded").iterdir() if path.is_dir())
HISTORIES = [path for recording in RECORDINGS for path in sorted((recording / "histories").iterdir())]
TIMEOUT = 60.0

WORKFLOWS = [deep_workflow.ExecuteAirflowDagDeepWorkflow, CreateDueDagRunsWorkflow]
SIGNALS = {models.RESYNC_SIGNAL, models.WAKE_SIGNAL}
SEARCH_ATTRIBUTES = {deep_workflow.DAG_ID.name, deep_workflow.RUN_ID.name, deep_workflow.STATE.name}
# What each workflow and activity takes and returns, by the names that are in the histories.
PAYLOADS = {
    "ExecuteAirflowDagDeepWorkflow": (models.DagRunInput, models.DagRunResult),
    "CreateDueDagRunsWorkflow": (str, int),
    "load_serialized_dag": (models.RunRef, models.LoadedDag),
    "ensure_task_instances": (models.RunRef, int),
    "schedule_pass": (models.PassInput, models.PassResult),
    "sync_task_status_batch": (models.TaskFailures, type(None)),
    "sync_dagrun_status": (models.RunStatus, models.RunFinished),
    "create_due_runs": (str, models.DueRuns),
    "run_airflow_task": (models.RunTask, type(None)),
    "run_callbacks": (models.RunRef, int),
    "run_trigger": (models.RunTrigger, type(None)),
}


@pytest.fixture(scope="module", params=RECORDINGS, ids=lambda path: path.name)
def recording(request) -> Path:
    """Folder of a recording."""
    return request.param


@pytest.fixture(scope="module")
def folder(recording, tmp_path_factory) -> Path:
    """The folder of a stopped stack, as the earlier version would have left it here."""
    folder = tmp_path_factory.mktemp("upgrade").resolve()
    with tarfile.open(recording / "state.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    recorded = json.loads((recording / "expected.json").read_text())["folder"]
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".db":
            path.write_text(path.read_text().replace(recorded, str(folder)))
    with contextlib.closing(sqlite3.connect(folder / "home" / "airflow" / "airflow.db")) as database:
        replace_text(database, recorded, str(folder))
    (folder / "dags" / "go").touch()
    return folder


def replace_text(database: sqlite3.Connection, old: str, new: str) -> None:
    """Replace a text wherever it is in a database."""
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for _, column, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall():
            database.execute(
                f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?)'
                f' WHERE typeof("{column}") = \'text\' AND instr("{column}", ?)',
                (old, new, old),
            )
    database.commit()


@pytest.fixture(scope="module")
def expected(recording, folder) -> dict[str, Any]:
    """What the earlier version said of its runs."""
    text = (recording / "expected.json").read_text()
    return json.loads(text.replace(json.loads(text)["folder"], str(folder)))


@pytest.fixture(scope="module")
def upgraded(folder):
    """The stack of this version on the state of the earlier one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEMPORAL_NATIVE_SCHEDULING", "true")
        with LocalStack(folder / "home") as stack:
            yield stack


@pytest.fixture
def run_of(upgraded):
    """Return a function that returns a recorded run."""
    return lambda dag_id, run_id="first": Run(upgraded.client, dag_id, run_id)


def tries(run) -> dict[str, int]:
    """Return the number of the latest try of each task that isn't mapped."""
    tasks = run.snapshot()["tasks"]
    return {task["task_id"]: task["try_number"] for task in tasks if task["map_index"] < 0}


def starts(folder, run, task_id) -> list[str]:
    """Return the map index and the try of each start of a task, with both versions."""
    prefix = f"{run.dag_id} {run.run_id} {task_id} "
    trace = (folder / "dags" / "trace").read_text().splitlines()
    return [line.removeprefix(prefix) for line in trace if line.startswith(prefix)]


def values(run, task_id) -> list[Any]:
    """Return what a task returned, in the order of map indexes."""
    returned = [xcom for xcom in facts(run)["xcoms"] if xcom[0] == task_id and xcom[2] == "return_value"]
    return [value for _, _, _, value in sorted(returned, key=lambda xcom: xcom[1])]


def keeps_what_has_ended(run, expected) -> bool:
    """Return whether the tasks of a run that ended with the earlier version are as that version left them."""
    (before,) = [
        recorded
        for recorded in expected["waiting"]
        if (recorded["dag_id"], recorded["run_id"]) == (run.dag_id, run.run_id)
    ]
    tasks = facts(run)["tasks"]
    return all(task in tasks for task in before["tasks"] if task[2] == "success")


def read_history(path: Path) -> dict[str, Any]:
    """Return a recorded history."""
    return json.loads(gzip.decompress(path.read_bytes()))


async def replay(path: Path, history: dict[str, Any]) -> None:
    """Replay a history with the workflows of this version."""
    # Outside debug mode a step has to end within two seconds, which it may not on a busy machine.
    replayer = Replayer(workflows=WORKFLOWS, debug_mode=True)
    await replayer.replay_workflow(WorkflowHistory.from_json(path.name, history))


@pytest.mark.parametrize(
    "path", HISTORIES, ids=lambda path: f"{path.parts[-3]}-{path.name.removesuffix('.json.gz')}"
)
async def test_recorded_history_replays(path):
    await replay(path, read_history(path))


async def test_history_with_another_activity_does_not_replay():
    path = next(path for path in HISTORIES if "finished" in path.name)
    history = read_history(path)
    for event in history["events"]:
        if scheduled := event.get("activityTaskScheduledEventAttributes"):
            scheduled["activityType"]["name"] = "another_activity"
    with pytest.raises(Exception, match="another_activity"):
        await replay(path, history)


def test_recorded_signals_and_search_attributes_are_known():
    """A replay passes over a signal that the workflow doesn't have, and over names of search attributes."""
    signals, attributes = set(), set()
    for path in HISTORIES:
        for event in read_history(path)["events"]:
            if signalled := event.get("workflowExecutionSignaledEventAttributes"):
                signals.add(signalled["signalName"])
            if upserted := event.get("upsertWorkflowSearchAttributesEventAttributes"):
                attributes |= upserted["searchAttributes"]["indexedFields"].keys()
    assert signals == SIGNALS
    assert attributes == SEARCH_ATTRIBUTES


def test_recorded_fields_are_known():
    """A field that has been renamed is read as its default, and a replay doesn't notice."""
    unknown, seen = set(), set()
    for path in HISTORIES:
        for name, kind, value in payloads(read_history(path)):
            seen.add(name)
            unknown |= {f"{name}: {field}" for field in unknown_fields(kind, value)}
    assert not unknown
    assert seen >= PAYLOADS.keys() - {"run_callbacks", "sync_task_status_batch"}


def payloads(history: dict[str, Any]):
    """Yield the name, the type and the value of each payload of a history."""

    def read(payload) -> Any:
        return json.loads(base64.b64decode(payload.get("data", "")) or "null")

    workflow = None
    for event in history["events"]:
        if begun := event.get("workflowExecutionStartedEventAttributes"):
            workflow = begun["workflowType"]["name"]
            yield workflow, PAYLOADS[workflow][0], read(begun["input"]["payloads"][0])
        elif continued := event.get("workflowExecutionContinuedAsNewEventAttributes"):
            yield workflow, PAYLOADS[workflow][0], read(continued["input"]["payloads"][0])
        elif ended := event.get("workflowExecutionCompletedEventAttributes"):
            yield workflow, PAYLOADS[workflow][1], read(ended["result"]["payloads"][0])
        elif scheduled := event.get("activityTaskScheduledEventAttributes"):
            name = scheduled["activityType"]["name"]
            yield name, PAYLOADS[name][0], read(scheduled["input"]["payloads"][0])
        elif (marker := event.get("markerRecordedEventAttributes")) and "result" in marker["details"]:
            name = read(marker["details"]["data"]["payloads"][0])["activity_type"]
            yield name, PAYLOADS[name][1], read(marker["details"]["result"]["payloads"][0])


def unknown_fields(kind: Any, value: Any):
    """Yield the fields of a value that its type doesn't have."""
    if dataclasses.is_dataclass(kind):
        types = get_type_hints(kind)
        for field, of_field in value.items():
            if field in types:
                yield from unknown_fields(types[field], of_field)
            else:
                yield f"{kind.__name__}.{field}"
    elif isinstance(value, list) and get_args(kind) and dataclasses.is_dataclass(get_args(kind)[0]):
        for item in value:
            yield from unknown_fields(get_args(kind)[0], item)


def test_finished_runs_are_shown_as_before(run_of, expected):
    for run in expected["runs"]:
        if run["run_id"] != "to_clear":
            shown = facts(run_of(run["dag_id"], run["run_id"]))
            assert json.loads(json.dumps(shown)) == run


def test_interrupted_run_goes_on(run_of, folder, expected):
    run = run_of("interrupted")
    run.respond("approval", "Approve")
    assert run.wait(timeout=TIMEOUT) == "success"
    assert {*states(run).values()} == {"success"}
    assert tries(run) == {
        "begins": 1,
        "file_is_there": 1,
        "retried": 2,
        "running": 1,
        "deferred": 1,
        "approval": 1,
        "ends": 1,
    }
    assert keeps_what_has_ended(run, expected)
    assert starts(folder, run, "begins") == ["-1 1"], "a task that has ended isn't run again"
    assert starts(folder, run, "running") == ["-1 1", "-1 1"], "the interrupted try is run again"
    assert starts(folder, run, "file_is_there") == ["-1 1", "-1 1"]
    assert starts(folder, run, "retried") == ["-1 1", "-1 2"]
    assert values(run, "begins") == ["begun"]
    assert values(run, "ends") == [["a stored word", "a stored password"]], "encrypted with the earlier key"


def test_run_that_was_continued_as_new_goes_on(run_of, folder, expected):
    run = run_of("continued")
    assert run.wait(timeout=TIMEOUT) == "success"
    assert {*states(run).values()} == {"success"}
    assert sorted(starts(folder, run, "square")) == sorted(f"{n} 1" for n in range(20))
    assert keeps_what_has_ended(run, expected)
    assert values(run, "square") == [n * n for n in range(20)]
    assert values(run, "ends") == ["ended"]
    assert run.events["execution"].nunique() > 1


def test_queued_run_starts_when_the_running_one_has_ended(run_of):
    first, second = run_of("one_at_a_time"), run_of("one_at_a_time", "second")
    assert second.wait(timeout=TIMEOUT) == "success"
    assert first.state == "success"
    assert first.tasks["end_date"].max() <= second.tasks["start_date"].min()


def test_run_that_temporal_had_not_heard_of_starts(run_of, folder):
    assert run_of("undelivered").wait(timeout=TIMEOUT) == "success"
    waiting = "SELECT kind FROM temporal_airflow_outbox WHERE dag_id = 'undelivered'"
    until(lambda: not rows(folder / "home", waiting), "Temporal is told")


def test_run_whose_time_has_passed_fails(run_of):
    run = run_of("timed_out")
    assert run.wait(timeout=TIMEOUT) == "failed"
    assert states(run) == {("nothing_is_there", -1): "skipped"}


def test_finished_run_is_cleared_and_runs_again(run_of, expected):
    (before,) = [run for run in expected["runs"] if run["run_id"] == "to_clear"]
    run = run_of("finished", "to_clear")
    run.clear()
    assert run.wait(timeout=TIMEOUT) == "success"
    after = facts(run)
    assert sorted(after["xcoms"], key=str) == sorted(before["xcoms"], key=str)
    assert [task[:3] for task in after["tasks"]] == [task[:3] for task in before["tasks"]]
    former = [tried for tried in before["tries"] if tried in after["tries"]]
    assert former == before["tries"], "the tries of the earlier version are still there"
    assert len(after["tries"]) >= len(before["tries"]) + len(after["tasks"])


def test_run_of_a_notebook_is_cleared_and_runs_again(run_of, expected):
    (recorded,) = [run for run in expected["runs"] if run["dag_id"] == "of_a_notebook"]
    run = run_of("of_a_notebook", recorded["run_id"])
    run.clear()
    assert run.wait(timeout=TIMEOUT) == "success"
    assert tries(run) == {"answer": 2}
    assert values(run, "answer") == [42]


async def test_schedule_of_the_earlier_version_fires(upgraded, run_of, folder):
    # The stack creates a run at its start if the day is another one than that of the recording.
    assert await fire_schedule(upgraded.status()["env"]) in (0, 1)
    scheduled = "SELECT run_id FROM dag_run WHERE run_type = 'scheduled' ORDER BY logical_date"
    *_, (latest,) = rows(folder / "home", scheduled)
    assert run_of("by_time", latest).wait(timeout=TIMEOUT) == "success"
    (due,) = rows(
        folder / "home", "SELECT next_dagrun_create_after > datetime('now') FROM dag WHERE dag_id = 'by_time'"
    )
    assert due == (1,), "the next one is due later"


def test_recorded_file_is_run_anew(upgraded, folder):
    run = upgraded.run(folder / "dags" / "upgraded.py", dag_id="finished")
    assert run.wait(timeout=TIMEOUT) == "success"
    assert values(run, "total") == [14]
