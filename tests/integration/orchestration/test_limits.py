"""Limits across runs: waiting costs nothing, no waiting run is forgotten, and changes from outside are noticed."""

from __future__ import annotations

import contextlib
import sqlite3
import textwrap
from pathlib import Path

import psutil
import pytest
from temporalio.api.enums.v1 import EventType

from tests.support.stack_helpers import lines, until, with_client

STRATEGY = """
    from airflow.plugins_manager import AirflowPlugin
    from airflow.task.priority_strategy import PriorityWeightStrategy

    class ByName(PriorityWeightStrategy):
        '''The weight is the number at the end of the task's name.'''

        def get_weight(self, ti):
            return int(ti.task_id.rpartition("_")[2])

    class Strategies(AirflowPlugin):
        name = "strategies"
        priority_weight_strategies = [ByName]
"""

DAGS = """
    import os
    import time
    from datetime import datetime, timedelta, timezone
    from pathlib import Path

    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG, task
    from strategies import ByName

    def note(text):
        with (FOLDER / "trace").open("a") as file:
            file.write(text + "\\n")

    def work(seconds=0.1):
        note("start")
        time.sleep(seconds)
        note("end")

    with DAG("shares", schedule=None, max_active_runs=50):
        for number in range(10):

            @task(task_id=f"task_{number}", pool="two_slots")
            def shared():
                work(0)

            shared()

    for weight in (1, 5, 9):
        with DAG(f"weighs_{weight}", schedule=None):

            @task(pool="closed", priority_weight=weight)
            def only(dag_run=None):
                note(f"ran {dag_run.dag_id}")

            only()

    with DAG("weighed_by_a_plugin", schedule=None):
        for number in (3, 1, 2):

            @task(task_id=f"number_{number}", pool="closed", weight_rule=ByName())
            def numbered(ti=None):
                note(f"ran {ti.task_id}")

            numbered()

    with DAG("few_at_a_time", schedule=None):

        @task(max_active_tis_per_dag=2)
        def few(x):
            work()

        few.expand(x=[1, 2, 3, 4])

    with DAG("holds_its_slot", schedule=None, dagrun_timeout=timedelta(seconds=4)):

        @task(pool="one_slot")
        def holds():
            note("holds")
            time.sleep(60)

        holds()

    with DAG("wants_a_slot", schedule=None):

        @task(pool="one_slot")
        def wants():
            return "got it"

        wants()

    with DAG("is_paused", schedule=None):

        @task
        def before():
            note("before")
            while not (FOLDER / "go").exists():
                time.sleep(0.05)

        before() >> EmptyOperator(task_id="empty") >> EmptyOperator(task_id="last")

    with DAG("follows", schedule=None, max_active_runs=50):

        @task(depends_on_past=True)
        def first():
            while not (FOLDER / "go").exists():
                time.sleep(0.05)

        first() >> EmptyOperator(task_id="second", depends_on_past=True)

    with DAG("past_is_mended", schedule=None):

        @task(depends_on_past=True)
        def fails_at_first(dag_run=None):
            if dag_run.run_id.endswith("-1"):
                raise ValueError("the first run")

        @task.sensor(mode="reschedule", poke_interval=3600)
        def keeps_busy(dag_run=None):
            return dag_run.run_id.endswith("-1")

        fails_at_first()
        keeps_busy()

    with DAG("waits_for_long", schedule=None, max_active_tasks=300):

        @task.sensor(mode="reschedule", poke_interval=3600, timeout=86400)
        def sensor(x):
            note(f"poke {os.getpid()}")
            return False

        sensor.expand(x=list(range(SENSORS)))

    with DAG("something_else", schedule=None):

        @task
        def quick():
            return "done"

        quick()
"""

SENSORS = 200


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory):
    from temporal_airflow_nb import LocalStack

    home = tmp_path_factory.mktemp("limits") / "home"
    plugins = home / "airflow" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "strategies.py").write_text(textwrap.dedent(STRATEGY))
    with LocalStack(home) as stack:
        for pool, slots in {"two_slots": 2, "one_slot": 1}.items():
            set_pool(stack, pool, slots)
        yield stack


@pytest.fixture
def dags(tmp_path):
    path = tmp_path / "limits.py"
    header = f"from pathlib import Path\nFOLDER = Path({str(tmp_path)!r})\nSENSORS = {SENSORS}\n"
    path.write_text(header + textwrap.dedent(DAGS))
    return path


def change(stack, statement, *values):
    """Change Airflow's database as its UI does, without the stack."""
    path = Path(stack.status()["env"]["AIRFLOW_HOME"]) / "airflow.db"
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as database, database:
        database.execute(statement, values)


def set_pool(stack, pool, slots):
    change(stack, "DELETE FROM slot_pool WHERE pool = ?", pool)
    change(
        stack,
        "INSERT INTO slot_pool (pool, slots, description, include_deferred) VALUES (?, ?, '', 0)",
        pool,
        slots,
    )


def events(stack, run):
    async def fetch(client):
        return (await client.get_workflow_handle(run.workflow_id).fetch_history()).events

    return with_client(stack, fetch)


def count(found, kind):
    return sum(event.event_type == kind for event in found)


def all_known_as(stack, run, state):
    """Return whether the workflow knows task instances, all of them in ``state``."""

    async def query(client):
        return await client.get_workflow_handle(run.workflow_id).query("task_states")

    return {ti["state"] for ti in with_client(stack, query)} == {state}


def states(run):
    """Return task id → state."""
    return {row.task_id: row.state if isinstance(row.state, str) else None for row in run.tasks.itertuples()}


def most_at_once(trace):
    running = most = 0
    for line in lines(trace, ""):
        running += {"start": 1, "end": -1}[line]
        most = max(most, running)
    return most


def run_something_else(stack, dags):
    assert stack.run(dags, dag_id="something_else").wait(timeout=60) == "success"


def wait_for_all(runs, timeout=180):
    assert {run.wait(timeout=timeout) for run in runs} == {"success"}


def test_many_runs_share_a_pool_with_few_signals(own_stack, dags, tmp_path):
    runs = [own_stack.run(dags, dag_id="shares") for _ in range(20)]
    wait_for_all(runs)
    assert most_at_once(tmp_path / "trace") == 2
    histories = [events(own_stack, run) for run in runs]
    signals = sum(count(found, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED) for found in histories)
    assert signals <= 20 * (1 + 10), "a run gets a signal for its start, and at most one for each slot"
    transactions = sum(count(found, EventType.EVENT_TYPE_MARKER_RECORDED) for found in histories)
    assert transactions <= 20 * (5 + 2 * 10), "a pass follows a task's end or a slot"


def test_waiting_runs_cost_nothing_and_notice_a_larger_pool(own_stack, dags, tmp_path):
    set_pool(own_stack, "closed", 0)
    runs = [own_stack.run(dags, dag_id=f"weighs_{weight}") for weight in (5, 1, 9)]
    until(lambda: all(states(run) == {"only": "scheduled"} for run in runs))
    run_something_else(own_stack, dags)
    before = [len(events(own_stack, run)) for run in runs]
    run_something_else(own_stack, dags)
    assert [len(events(own_stack, run)) for run in runs] == before
    set_pool(own_stack, "closed", 1)
    wait_for_all(runs)
    assert lines(tmp_path / "trace", "ran") == ["ran weighs_9", "ran weighs_5", "ran weighs_1"]


def test_a_priority_strategy_of_a_plugin_decides(own_stack, dags, tmp_path):
    set_pool(own_stack, "closed", 0)
    run = own_stack.run(dags, dag_id="weighed_by_a_plugin")
    until(lambda: set(states(run).values()) == {"scheduled"})
    set_pool(own_stack, "closed", 1)
    wait_for_all([run])
    assert lines(tmp_path / "trace", "ran") == ["ran number_3", "ran number_2", "ran number_1"]


def test_max_active_tis_per_dag_limits_instances_across_runs(own_stack, dags, tmp_path):
    wait_for_all([own_stack.run(dags, dag_id="few_at_a_time") for _ in range(3)])
    assert len(lines(tmp_path / "trace", "end")) == 12
    assert most_at_once(tmp_path / "trace") == 2


def test_a_run_that_timed_out_frees_its_slot(own_stack, dags, tmp_path):
    holding = own_stack.run(dags, dag_id="holds_its_slot")
    until(lambda: lines(tmp_path / "trace", "holds"))
    wanting = own_stack.run(dags, dag_id="wants_a_slot")
    until(lambda: states(wanting) == {"wants": "scheduled"})
    wait_for_all([wanting])
    assert holding.wait(timeout=30) == "failed"
    assert states(holding) == {"holds": "skipped"}


def test_a_paused_dag_starts_nothing_until_it_is_unpaused(own_stack, dags, tmp_path):
    run = own_stack.run(dags, dag_id="is_paused")
    until(lambda: lines(tmp_path / "trace", "before"))
    change(own_stack, "UPDATE dag SET is_paused = 1 WHERE dag_id = 'is_paused'")
    (tmp_path / "go").touch()
    until(lambda: all_known_as(own_stack, run, "success"))
    run_something_else(own_stack, dags)
    assert states(run) == {"before": "success", "empty": None, "last": None}
    assert run.state == "running"
    change(own_stack, "UPDATE dag SET is_paused = 0 WHERE dag_id = 'is_paused'")
    wait_for_all([run])


def test_runs_that_wait_for_an_earlier_run_get_few_signals(own_stack, dags, tmp_path):
    runs = [own_stack.run(dags, dag_id="follows") for _ in range(25)]
    assert states(runs[-1]) == {"first": None, "second": None}
    (tmp_path / "go").touch()
    wait_for_all(runs)
    for run in runs:
        signals = count(events(own_stack, run), EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)
        assert signals <= 6, "its start, two tasks of the run before, and as often that a run began"


def test_marking_a_task_lets_the_next_run_go_on(own_stack, dags):
    first = own_stack.run(dags, dag_id="past_is_mended", run_id="run-1")
    assert first.wait(timeout=60) == "failed"
    second = own_stack.run(dags, dag_id="past_is_mended", run_id="run-2")
    until(lambda: states(second) == {"fails_at_first": None, "keeps_busy": "up_for_reschedule"})
    first.mark("success", "fails_at_first")
    until(lambda: states(second)["fails_at_first"] == "success")
    assert second.cancel() == "failed"


def test_the_first_instance_of_a_task_needs_no_earlier_one(own_stack, tmp_path):
    path = tmp_path / "grows.py"
    source = """
        from airflow.providers.standard.operators.empty import EmptyOperator
        from airflow.sdk import DAG

        with DAG("grows", schedule=None, default_args={"depends_on_past": True}):
            EmptyOperator(task_id="old")
    """
    path.write_text(textwrap.dedent(source))
    wait_for_all([own_stack.run(path)])
    path.write_text(
        textwrap.dedent(source)
        + "    EmptyOperator(task_id='new', ignore_first_depends_on_past=True)\n"
        + "    EmptyOperator(task_id='strict', ignore_first_depends_on_past=False)\n"
    )
    run = own_stack.run(path)
    until(lambda: states(run) == {"old": "success", "new": "success", "strict": None})
    assert run.state == "running"
    assert run.cancel() == "failed"


def test_waiting_sensors_cost_nothing(own_stack, dags, tmp_path):
    run = own_stack.run(dags, dag_id="waits_for_long")
    until(lambda: len(lines(tmp_path / "trace", "poke")) == SENSORS, timeout=120)
    until(lambda: all_known_as(own_stack, run, "up_for_reschedule"), timeout=60)
    run_something_else(own_stack, dags)
    before = len(events(own_stack, run))
    run_something_else(own_stack, dags)
    assert len(events(own_stack, run)) == before
    pids = [int(line.rpartition(" ")[2]) for line in lines(tmp_path / "trace", "poke")]
    assert len(pids) == SENSORS
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert run.cancel() == "failed"
