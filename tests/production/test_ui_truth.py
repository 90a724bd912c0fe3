"""The UI shows a run that Temporal executes exactly like one that Airflow's executor executes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psutil
import pytest

from tests.compatibility.oracle.compare import report
from tests.production.api_answers import ANSWERS, NATIVE, OF_TASKS, TASKS, Side, find_differences, normalize
from tests.production.cluster import Cluster

pytestmark = pytest.mark.timeout(900)

DAG_ID = "ui_truth"
LOGICAL_DATE = "2025-02-03T04:05:06Z"

# The states before the gates open, after the gate "wait" has opened, and at the end.
RUNNING = {
    "after_the_slot": None,
    "approves": "awaiting_input",
    "asks": "awaiting_input",
    "begins": "success",
    "chooses": "success",
    "chosen": "success",
    "closes": "success",
    "defers": "deferred",
    "fails": "failed",
    "fails_once": "running",
    "group.empty": "skipped",
    "group.mapped[0]": "success",
    "group.mapped[1]": "running",
    "group.reduces": None,
    "held": "running",
    "last": None,
    "makes": None,
    "never": "upstream_failed",
    "nor_this": "upstream_failed",
    "not_approved": None,
    "not_chosen": "skipped",
    "opens": "success",
    "pokes": "running",
    "several": "success",
    "shell": "success",
    "skips": "skipped",
    "takes_the_slot": "running",
    "triggers": "success",
    "waits_for_the_slot": "scheduled",
}
WAITING = RUNNING | {"fails_once": "up_for_retry", "pokes": "up_for_reschedule"}
ENDED = RUNNING | dict.fromkeys(
    [task for task, state in RUNNING.items() if state not in ("failed", "skipped", "upstream_failed")],
    "success",
)
ENDED["not_approved"] = "skipped"
PARTICULARS = {"timestamp", "bundle_prepare_ms", "dag_file_parse_ms"}
LOGS = ["approves", "asks", "begins", "chooses", "defers", "fails", "fails_once", "group.mapped[0]"]
LOGS += ["group.mapped[1]", "group.reduces", "held", "makes", "pokes", "several", "shell", "skips"]
LOGS += ["takes_the_slot", "triggers", "waits_for_the_slot"]
RESUMED = {"approves", "asks", "defers", "pokes"}
TRIES = {"fails_once": 2}

MOVING = ["tasks", "grid: tasks", "gantt", "audit", "home", "dag stats", "pool", "run", "grid: runs"]
MOVING += ["questions", "mapped tasks", "xcoms", "latest run"]

ALLOWED = {
    "last_scheduling_decision": "NULL, so that a stock scheduler starts the run first when it is queued again",
    "Temporal": "the link that native runs don't have",
    "trigger / queue": "stock triggerers ignore triggers with a queue",
    "trigger / triggerer_id": "the trigger runs in Temporal, not in a triggerer",
    "triggerer_job": "the trigger runs in Temporal, not in a triggerer",
    "queued_by_job_id": "NULL, so that stock schedulers don't consider the task lost by their executor",
    "scheduled_by_job_id": "no scheduler job schedules its tasks",
}

TABLES = {
    "dag_run": "run_id",
    "rendered_task_instance_fields": "task_id, map_index",
    "task_instance": "task_id, map_index",
    "task_instance_history": "task_id, map_index, try_number",
}


@dataclass
class Pair:
    """The two runs, and observations of both while they ran."""

    native: Side
    managed: Side
    observed: dict[str, list[Any]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Side]:
        return iter((self.native, self.managed))

    def observe(self, name: str, ask: Callable[[Side], Any]) -> None:
        """Store the present answers about both runs."""
        self.observed[name] = [ask(side) for side in self]


@pytest.fixture(scope="module")
def played(running_cluster) -> Pair:
    """Run both runs side by side through every state; return them at their end."""
    cluster: Cluster = running_cluster
    cluster.heal()
    run_id = f"run-{uuid.uuid4().hex[:8]}"
    pair = Pair(*(Side(cluster, f"{prefix}{DAG_ID}", run_id) for prefix in (NATIVE, "")))
    for side in pair:
        side.ask("/api/v2/pools", "POST", {"name": side.dag_id, "slots": 1})
        body = {"dag_run_id": run_id, "logical_date": LOGICAL_DATE, "conf": {"colour": "blue"}}
        side.ask("/api/v2/dags/{dag}/dagRuns", "POST", body)
    wait_for_both(pair, lambda side: side.states() == RUNNING, f"both to be at {RUNNING}")
    pair.observe("log", lambda side: side.log("held"))
    open_gates(pair, "wait")
    wait_for_both(pair, lambda side: side.states() == WAITING, f"both to be at {WAITING}")
    for name in MOVING:
        pair.observe(name, lambda side, name=name: side.ask(ANSWERS[name]))
    with no_process_starts(cluster):
        for side in pair:
            answer(side, "asks", "this", {"comment": "so be it"})
        wait_for_both(pair, lambda side: side.states()["asks"] == "queued", "both to be queued")
        pair.observe("queued", Side.states)
    for side in pair:
        answer(side, "approves", "Reject")
    open_gates(pair, "held", "slot", "mapped", "poke", "defer")
    for side in pair:
        assert cluster.wait_for_end(side.dag_id, run_id) == "failed"
    return pair


@pytest.fixture
def pair(cluster, played) -> Pair:
    """Return both runs at their end."""
    return played


def wait_for_both(pair: Pair, holds: Callable[[Side], bool], description: str) -> None:
    """Wait until a condition holds for both runs at the same time."""

    def both() -> bool:
        return all(holds(side) for side in pair)

    def problem() -> str:
        return "\n".join(f"{side.dag_id}: {side.states()}" for side in pair)

    try:
        pair.managed.cluster.wait_for(both, description)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{problem()}") from None


def open_gates(pair: Pair, *names: str) -> None:
    for side in pair:
        for name in names:
            side.cluster.gate(side.dag_id, name).touch()


def answer(side: Side, task: str, option: str, params: dict[str, Any] | None = None) -> None:
    body = {"chosen_options": [option], "params_input": params or {}}
    side.ask(f"{TASKS}/{task}/-1/hitlDetails", "PATCH", body)


@contextmanager
def no_process_starts(cluster: Cluster) -> Iterator[None]:
    """Suspend the processes that start tasks: the zygotes, and the idle processes of the executor."""
    stopped = []
    for kind in ("worker", "scheduler"):
        for pid in cluster.pids(kind):
            for process in psutil.Process(pid).children(recursive=True) if psutil.pid_exists(pid) else ():
                with suppress(psutil.NoSuchProcess):  # some end meanwhile
                    if kind == "worker" or "LocalExecutor: <idle>" in " ".join(process.cmdline()):
                        process.suspend()
                        stopped.append(process)
    try:
        yield
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@pytest.mark.parametrize("name", MOVING)
def test_answers_are_the_same_while_the_runs_wait(pair, name):
    found = find_differences(*pair.observed[name], ALLOWED)
    assert not found, report(name, found)


def test_the_runs_waited_during_the_observation(pair):
    for seen in pair.observed["grid: tasks"]:
        states = {ti["task_id"]: ti["state"] for ti in seen["task_instances"]}
        assert states["fails_once"] == "up_for_retry"
        assert states["pokes"] == "up_for_reschedule"


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_the_same_at_the_end(pair, name):
    found = find_differences(*(side.ask(ANSWERS[name]) for side in pair), ALLOWED)
    assert not found, report(name, found)


@pytest.mark.parametrize("name", ["run", "tasks", "xcoms", "audit", "consumed asset events", "gantt"])
def test_answers_about_an_asset_triggered_run_are_the_same(pair, name):
    sides = []
    for side in pair:
        (event,) = side.ask(ANSWERS["produced asset events"])["asset_events"]
        (run,) = event["created_dagruns"]
        assert side.cluster.wait_for_end(run["dag_id"], run["run_id"]) == "success"
        sides.append(Side(side.cluster, run["dag_id"], run["run_id"]))
    found = find_differences(*(side.ask(ANSWERS[name]) for side in sides), ALLOWED)
    assert not found, report(name, found)


@pytest.mark.parametrize("name", OF_TASKS)
def test_answers_about_each_task_are_the_same(pair, name):
    for task in sorted({task.partition("[")[0] for task in ENDED} - {"group.mapped"}):
        answers = [side.ask(OF_TASKS[name], task=task) for side in pair]
        found = find_differences(*answers, ALLOWED)
        assert not found, report(f"{name} of {task}", found)


@pytest.mark.parametrize("table", TABLES)
def test_rows_in_the_database_are_the_same(pair, table):
    """The database has columns that no answer shows."""
    of_run = f"SELECT * FROM {table} WHERE dag_id = :dag_id AND run_id = :run_id ORDER BY {TABLES[table]}"
    rows = [side.cluster.query(of_run, dag_id=side.dag_id, run_id=side.run_id) for side in pair]
    found = find_differences(*rows, ALLOWED)
    assert not found, report(table, found)
    assert rows[0]


def test_both_runs_reach_the_expected_states(pair):
    assert [side.states() for side in pair] == [ENDED, ENDED]


def test_both_tasks_were_queued_while_no_process_started(pair):
    assert [states["asks"] for states in pair.observed["queued"]] == ["queued", "queued"]


def lines(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the log of a try without the lines about the parsing of the DAG file."""
    kept = [
        {name: value for name, value in line.items() if name not in PARTICULARS}
        for line in log
        if not line["event"].startswith("Filling up the DagBag") and line.get("logger") != "py.warnings"
    ]
    # Printed and logged lines reach the log on different ways, so their relative order varies.
    return sorted(kept, key=lambda line: line.get("logger") == "task.stdout")


@pytest.mark.parametrize("task", LOGS)
def test_logs_are_the_same(pair, task):
    task_id, _, map_index = task.rstrip("]").partition("[")
    for number in range(1, TRIES.get(task, 1) + 1):
        logs = [lines(side.log(task_id, number, int(map_index or -1))) for side in pair]
        found = find_differences(*logs, ALLOWED)
        assert not found, report(f"log of {task}, try {number}", found)


def test_the_log_of_a_running_task_is_the_same(pair):
    native, managed = (lines(log) for log in pair.observed["log"])
    assert not find_differences(native, managed, {})
    assert [line["event"] for line in managed if "gate" in line["event"]] == [
        "before the gate",
        "printed before the gate",
    ]


def test_xcoms_have_the_same_values(pair):
    def values(side: Side) -> dict[str, Any]:
        found = side.ask(ANSWERS["xcoms"])["xcom_entries"]
        path = f"{TASKS}/{{task}}/xcomEntries/{{key}}?map_index={{map_index}}&deserialize=false"
        return {
            f"{entry['task_id']}[{entry['map_index']}] {entry['key']}": side.ask(
                path, task=entry["task_id"], key=entry["key"], map_index=entry["map_index"]
            )["value"]
            for entry in found
        }

    native, managed = (values(side) for side in pair)
    assert normalize(managed) == normalize(native)
    assert managed["several[-1] number"] == 1.5


def test_moments_of_each_try_are_in_order(pair):
    for side in pair:
        for ti in side.ask(ANSWERS["tasks"])["task_instances"]:
            place = f"/{ti['map_index']}" if ti["map_index"] >= 0 else ""
            tries = side.ask(f"{TASKS}/{{task}}{place}/tries", task=ti["task_id"])["task_instances"]
            for one in tries:
                scheduled, queued, start, end = (
                    one[name] and datetime.fromisoformat(one[name])
                    for name in ("scheduled_when", "queued_when", "start_date", "end_date")
                )
                assert queued is None or scheduled <= queued, one
                assert start is None or start <= end, one
                if queued is not None and ti["task_id"] not in RESUMED:
                    assert queued <= start, one
                    assert one["duration"] == pytest.approx((end - start).total_seconds(), abs=0.01)
            ends = [one["end_date"] for one in tries]
            assert ends == sorted(ends)
