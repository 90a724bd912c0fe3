"""Processes are killed at any moment: no run is lost, and no task runs twice."""

from __future__ import annotations

import json
import random
import threading
import time

import pytest

from tests.production.cluster import Cluster, task_key
from tests.production.execution_checks import assert_temporal_executed, executed_by, workflow_states

# Processes start slowly on a busy machine.
pytestmark = pytest.mark.timeout(600)

STEPS = ("one", "two", "three", "four")


def outbox(cluster: Cluster, dag_id: str, run_id: str) -> list[str]:
    """Return the kinds of the undelivered messages about a run."""
    rows = cluster.query(
        "SELECT kind FROM temporal_airflow_outbox WHERE dag_id = :dag_id AND run_id = :run_id ORDER BY id",
        dag_id=dag_id,
        run_id=run_id,
    )
    return [row["kind"] for row in rows]


def add_message(cluster: Cluster, dag_id: str, run_id: str, kind: str) -> None:
    """Add a message, as a dispatcher leaves it that dies between the delivery and the deletion."""
    cluster.run_python(
        "-c",
        "import sys\n"
        "from temporal_airflow_nb.orchestration.outbox import outbox\n"
        "from temporal_airflow_nb.tasks.database import transaction\n"
        "with transaction() as session:\n"
        "    outbox.notify(*sys.argv[1:], session)\n",
        dag_id,
        run_id,
        kind,
    )


class SuccessWatcher(threading.Thread):
    """Records when each task was first seen as successful in the database."""

    def __init__(self, cluster: Cluster, dag_id: str) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.dag_id = dag_id
        self.succeeded: dict[tuple[str, str], float] = {}
        self._ended = threading.Event()

    def __enter__(self) -> SuccessWatcher:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        found = "SELECT run_id, task_id FROM task_instance WHERE dag_id = :dag_id AND state = 'success'"
        while not self._ended.wait(0.1):
            for row in self.cluster.query(found, dag_id=self.dag_id):
                self.succeeded.setdefault((row["run_id"], row["task_id"]), time.time())


@pytest.mark.postgres
def test_processes_are_killed_at_random(cluster):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    names = [name for name in cluster.services if name != "dag-processor"]
    killed = [*names, *(name for name in names if name.startswith(("scheduler", "worker")))]
    chance.shuffle(killed)
    run_ids = []
    with SuccessWatcher(cluster, "steps") as watch:
        for name in killed:
            run_ids += [cluster.trigger("steps"), cluster.trigger("steps")]
            time.sleep(chance.uniform(0, 2))
            cluster.kill(name)
            cluster.start(name)
        cluster.wait_until_ready()
        for run_id in run_ids:
            assert cluster.wait_for_end("steps", run_id) == "success"
            assert cluster.tasks("steps", run_id) == dict.fromkeys(STEPS, "success")
    for run_id in run_ids:
        cluster.wait_for(
            lambda run_id=run_id: (
                {status.name for status in workflow_states(cluster, "steps", run_id)} == {"COMPLETED"}
            ),
            f"the end of the workflows of {run_id}",
        )
        kinds = executed_by(cluster, "steps", run_id)
        assert set(kinds) == set(STEPS)
        assert {kind for tries in kinds.values() for kind in tries} == {"worker"}
        for line in cluster.executions("steps", run_id):
            seen = watch.succeeded.get((run_id, task_key(line)), time.time())
            assert line["at"] <= seen, f"{line} is a start of a task that had already succeeded"
    assert len(set(run_ids)) == len(run_ids)


@pytest.mark.postgres
def test_runs_that_start_without_a_worker_wait_for_one(cluster):
    names = [name for name in cluster.services if name.startswith(("worker", "scheduler"))]
    cluster.stop(*(name for name in names if name.startswith("worker")))
    run_ids = [cluster.trigger("simple") for _ in range(3)]
    for run_id in run_ids:
        cluster.wait_for(
            lambda run_id=run_id: "start" in outbox(cluster, "simple", run_id), f"{run_id} to be taken over"
        )
        assert cluster.run_state("simple", run_id) == "running"
        assert executed_by(cluster, "simple", run_id) == {}
    cluster.kill(*(name for name in names if name.startswith("scheduler")))
    cluster.start(*names)
    cluster.wait_until_ready()
    for run_id in run_ids:
        assert_temporal_executed(cluster, "simple", run_id, "first", "second")


@pytest.mark.postgres
def test_runs_wait_for_temporal(cluster):
    cluster.kill("temporal")
    run_ids = [cluster.trigger("simple") for _ in range(3)]
    for run_id in run_ids:
        cluster.wait_for(
            lambda run_id=run_id: "start" in outbox(cluster, "simple", run_id), f"{run_id} to be taken over"
        )
        assert executed_by(cluster, "simple", run_id) == {}
    cluster.start("temporal")
    cluster.wait_until_ready()
    for run_id in run_ids:
        assert_temporal_executed(cluster, "simple", run_id, "first", "second")


def test_a_run_survives_that_everything_is_killed_at_once(cluster):
    run_id = cluster.trigger("held")
    cluster.wait_for(lambda: "waits" in executed_by(cluster, "held", run_id), "the run to wait at the gate")
    cluster.kill(*cluster.services)
    cluster.gate("held", f"{run_id}.open").touch()
    cluster.heal()
    assert_temporal_executed(cluster, "held", run_id, "before", "waits", "after", tries={"waits": 2})


def test_a_run_survives_the_loss_of_temporals_data(cluster):
    run_id = cluster.trigger("held")
    cluster.wait_for(lambda: "waits" in executed_by(cluster, "held", run_id), "the run to wait at the gate")
    cluster.kill("worker", "temporal")
    for file in (cluster.folder / "temporal").glob("temporal.db*"):
        file.unlink()
    cluster.gate("held", f"{run_id}.open").touch()
    cluster.start("temporal")
    cluster.wait_until_ready()
    cluster.start("worker")
    cluster.wait_until_ready()
    assert_temporal_executed(cluster, "held", run_id, "before", "waits", "after", tries={"waits": 2})


@pytest.mark.postgres
def test_a_start_message_may_be_delivered_twice(cluster):
    run_id = cluster.trigger("held")
    cluster.wait_for(lambda: "waits" in executed_by(cluster, "held", run_id), "the run to wait at the gate")
    add_message(cluster, "held", run_id, "start")
    cluster.wait_for(lambda: outbox(cluster, "held", run_id) == [], "the message to be delivered")
    cluster.gate("held", f"{run_id}.open").touch()
    assert_temporal_executed(cluster, "held", run_id, "before", "waits", "after")

    add_message(cluster, "held", run_id, "start")
    cluster.wait_for(lambda: outbox(cluster, "held", run_id) == [], "the message to be delivered")
    assert_temporal_executed(cluster, "held", run_id, "before", "waits", "after")


ROLLED_BACK = """
import json, sys
from airflow import settings
from airflow.api.common.trigger_dag import _trigger_dag
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.utils.types import DagRunTriggeredByType
from sqlalchemy import func, select
from temporal_airflow_nb.orchestration.outbox.tables import outbox

run_id, end = sys.argv[1:]
session = settings.NonScopedSession()

def count():
    messages = select(func.count()).select_from(outbox).where(outbox.c.run_id == run_id)
    runs = select(func.count()).select_from(DagRun).where(DagRun.run_id == run_id)
    return [session.scalar(messages), session.scalar(runs)]

_trigger_dag("simple", DBDagBag(), triggered_by=DagRunTriggeredByType.CLI, run_id=run_id, session=session)
session.flush()
found = [count()]
getattr(session, end)()
print(json.dumps([*found, count() if end == "rollback" else None]))
"""


@pytest.mark.postgres
def test_a_message_is_rolled_back_with_its_change(cluster):
    answer = cluster.run_python("-c", ROLLED_BACK, "rolled-back", "rollback")
    assert json.loads(answer.splitlines()[-1]) == [[1, 1], [0, 0]]
    answer = cluster.run_python("-c", ROLLED_BACK, "committed", "commit")
    assert json.loads(answer.splitlines()[-1]) == [[1, 1], None]
    assert_temporal_executed(cluster, "simple", "committed", "first", "second")
    assert executed_by(cluster, "simple", "rolled-back") == {}
