"""Triggers of deferred tasks: lost workers, cancellation, and their cost while they wait."""

from __future__ import annotations

import textwrap

import psutil
import pytest
from temporalio.worker import Replayer

from temporal_airflow_nb.orchestration.workflow.deep_workflow import ExecuteAirflowDagDeepWorkflow
from tests.support.stack_helpers import in_a_loop, kill, lines, pid_of, states, until, with_client

TRIGGERS = """
    import asyncio
    from pathlib import Path
    from airflow.triggers.base import BaseTrigger, TriggerEvent

    def note(path, text):
        with Path(path).open("a") as file:
            file.write(text + "\\n")

    class FileTrigger(BaseTrigger):
        '''Fires when a file is there.'''

        def __init__(self, path, trace, name="", exits=False):
            super().__init__()
            self.path, self.trace, self.name, self.exits = path, trace, name, exits

        def serialize(self):
            kwargs = {"path": self.path, "trace": self.trace, "name": self.name, "exits": self.exits}
            return "file_trigger.FileTrigger", kwargs

        async def run(self):
            import os
            note(self.trace, f"starts {self.name} in {os.getpid()}")
            while not Path(self.path).exists():
                await asyncio.sleep(0.05)
            if self.exits and Path(self.path).read_text():
                Path(self.path).write_text("")
                os._exit(3)
            yield TriggerEvent(self.name)

        async def on_kill(self):
            note(self.trace, f"killed {self.name}")
"""

DAGS = """
    from airflow.sdk import DAG, BaseOperator, chain, task
    from file_trigger import FileTrigger, note

    class Waits(BaseOperator):
        def __init__(self, *, folder, exits=False, **kwargs):
            super().__init__(**kwargs)
            self.folder, self.exits = folder, exits

        def execute(self, context):
            name = f"{self.task_id} {context['ti'].map_index}"
            self.defer(
                trigger=FileTrigger(f"{self.folder}/go", f"{self.folder}/trace", name, self.exits),
                method_name="resumed",
            )

        def resumed(self, context, event):
            note(f"{self.folder}/trace", f"resumed {event}")
            return event

    with DAG("waits", schedule=None):
        Waits(task_id="one", folder=FOLDER)

    with DAG("many_wait", schedule=None, max_active_tasks=100):
        Waits.partial(task_id="each", folder=FOLDER).expand(exits=[False] * 40)

    with DAG("waits_beside_a_chain", schedule=None):
        Waits(task_id="one", folder=FOLDER)

        @task
        def step():
            pass

        @task
        def last():
            note(f"{FOLDER}/trace", "chain has ended")

        chain(*[step.override(task_id=f"step_{number}")() for number in range(20)], last())

    with DAG("trigger_exits", schedule=None):
        Waits(task_id="one", folder=FOLDER, exits=True)
"""


@pytest.fixture(scope="module")
def triggers(tmp_path_factory):
    """Write triggers to a folder on the stack's PYTHONPATH: a triggerer imports them from there."""
    folder = tmp_path_factory.mktemp("triggers")
    (folder / "file_trigger.py").write_text(textwrap.dedent(TRIGGERS))
    return folder


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory, triggers):
    from temporal_airflow_nb import LocalStack

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(triggers), prepend=":")
        patch.setenv("TEMPORAL_AIRFLOW_HISTORY_EVENTS", "50")
        with LocalStack(tmp_path_factory.mktemp("deferral") / "home") as stack:
            yield stack


@pytest.fixture
def dags(tmp_path):
    path = tmp_path / "waits.py"
    path.write_text(f"FOLDER = {str(tmp_path)!r}\n" + textwrap.dedent(DAGS))
    return path


def starts_in(folder):
    return lines(folder / "trace", "starts")


def process_of(line):
    return int(line.rsplit(" ", 1)[-1])


def test_a_trigger_restarts_after_its_worker_was_killed(own_stack, dags, tmp_path):
    run = own_stack.run(dags, dag_id="waits")
    until(lambda: starts_in(tmp_path))
    (first,) = starts_in(tmp_path)
    kill(pid_of(own_stack, "worker"))
    until(lambda: len(starts_in(tmp_path)) == 2, timeout=90)
    assert not psutil.pid_exists(process_of(first))
    (tmp_path / "go").touch()
    assert run.wait(timeout=60) == "success"
    assert lines(tmp_path / "trace", "resumed") == ["resumed one -1"]
    assert run.xcoms["value"].tolist() == ["one -1"]


def test_a_dead_trigger_process_is_replaced(own_stack, dags, tmp_path):
    run = own_stack.run(dags, dag_id="trigger_exits")
    until(lambda: starts_in(tmp_path))
    (tmp_path / "go").write_text("exit now")
    until(lambda: len(starts_in(tmp_path)) == 2)
    assert run.wait(timeout=60) == "success"


def test_cancelling_a_run_kills_its_triggers(own_stack, dags, tmp_path):
    run = own_stack.run(dags, dag_id="waits")
    until(lambda: starts_in(tmp_path))
    assert run.cancel() == "failed"
    until(lambda: lines(tmp_path / "trace", "killed") == ["killed one -1"])
    assert states(run) == {"one": "failed"}


def test_triggers_share_one_process_and_occupy_no_slot(own_stack, dags, tmp_path):
    run = own_stack.run(dags, dag_id="many_wait")
    until(lambda: len(starts_in(tmp_path)) == 40, timeout=60)
    assert len({process_of(line) for line in starts_in(tmp_path)}) == 1
    until(lambda: (run.tasks["state"] == "deferred").all())
    (tmp_path / "go").touch()
    assert run.wait(timeout=90) == "success"
    assert sorted(run.xcoms["value"]) == sorted(f"each {index}" for index in range(40))


def test_a_trigger_goes_on_while_its_workflow_continues_as_new(own_stack, dags, tmp_path):
    run = own_stack.run(dags, dag_id="waits_beside_a_chain")
    until(lambda: lines(tmp_path / "trace", "chain has ended"), timeout=90)

    async def executions(client):
        query = f"WorkflowId = '{run.workflow_id}'"
        found = [execution async for execution in client.list_workflows(query)]
        return [await client.get_workflow_handle(e.id, run_id=e.run_id).fetch_history() for e in found]

    assert len(with_client(own_stack, executions)) > 1
    (tmp_path / "go").touch()
    assert run.wait(timeout=60) == "success"
    assert len(starts_in(tmp_path)) == 1
    assert lines(tmp_path / "trace", "resumed") == ["resumed one -1"]
    replayer = Replayer(workflows=[ExecuteAirflowDagDeepWorkflow])
    for history in with_client(own_stack, executions):
        in_a_loop(replayer.replay_workflow(history))
