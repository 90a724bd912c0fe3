"""Runs scheduling passes on an Airflow database of its own and prints what they do, as JSON.

``test_scheduling.py`` starts it as a process: the test process may have another Airflow configured, or none.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from airflow import settings
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.db import initdb
from airflow.utils.state import TaskInstanceState
from sqlalchemy import event, select, update

from temporal_airflow_nb.orchestration.activities.sync_activities import schedule_pass
from temporal_airflow_nb.orchestration.outbox import tables
from temporal_airflow_nb.orchestration.run_creation.launch import create_run
from temporal_airflow_nb.orchestration.scheduling.task_graph import get_graph
from temporal_airflow_nb.orchestration.workflow.models import PassInput
from temporal_airflow_nb.tasks.dags import dag_of_run
from temporal_airflow_nb.tasks.database import reading, transaction

FOLDER = Path(__file__).parent / "scheduling_dags"


def main() -> dict:
    initdb()
    with settings.engine.begin() as connection:
        tables.create_tables(connection)
    with transaction() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
    bag = BundleDagBag(
        dag_folder=str(FOLDER / "shapes.py"), bundle_path=FOLDER, bundle_name="shapes", safe_mode=False
    )
    assert not bag.import_errors, bag.import_errors
    with transaction() as session:
        sync_bag_to_db(bag, "shapes", None, session=session)
    return {
        "graphs": {
            dag_id: describe_graph(dag_id)
            for dag_id in ("edges", "staged", "mapped", "mapped_group", "remembers")
        },
        "costs": {size: measure_completion(f"fan_out_{size}") for size in (20, 200)},
    }


def describe_graph(dag_id: str) -> dict:
    run_id = create_run(dag_id)
    with reading() as session:
        dag_run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        found = get_graph(dag_of_run(dag_run, session))
    tasks = sorted(found.order, key=found.order.__getitem__)
    return {
        "order": tasks,
        "depends_on": {task_id: sorted(found.depends_on[task_id]) for task_id in tasks},
        "affects": {task_id: sorted(found.affects.get(task_id, ())) for task_id in tasks},
        "next_run_dependents": {task_id: sorted(ids) for task_id, ids in found.next_run_dependents.items()},
        "waits_for": {task_id: sorted(found.waits_for(task_id)) for task_id in tasks},
        "same_instance": [[a, b] for a in tasks for b in tasks if a != b and found.same_instance(a, b)],
    }


def measure_completion(dag_id: str) -> dict:
    """Count the statements of a pass after the end of one of many tasks, and return its decisions."""
    run_id = create_run(dag_id)

    def end(task_id: str) -> None:
        with transaction() as session:
            session.execute(
                update(TaskInstance)
                .where(
                    TaskInstance.dag_id == dag_id,
                    TaskInstance.run_id == run_id,
                    TaskInstance.task_id == task_id,
                )
                .values(state=TaskInstanceState.SUCCESS)
            )

    first = schedule_pass(PassInput(dag_id, run_id, resync=True))
    assert [task.task_id for task in first.ready] == ["first"]
    end("first")
    second = schedule_pass(PassInput(dag_id, run_id, finished=[("first", -1)]))
    in_flight = [task.key for task in second.ready]
    end(in_flight[0][0])

    statements: list[str] = []
    loaded: Counter[str] = Counter()
    listen = event.listens_for(settings.engine, "before_cursor_execute")
    listen(lambda _c, _cur, statement, *_: statements.append(statement.split("\n")[0][:80]))
    event.listen(TaskInstance, "load", lambda *_: loaded.update(["task_instance"]))
    result = schedule_pass(PassInput(dag_id, run_id, finished=[in_flight[0]], in_flight=in_flight[1:]))
    return {
        "statements": len(statements),
        "loaded": loaded["task_instance"],
        "changed": result.changed,
        "ready": len(result.ready),
        "running": len(in_flight),
    }


json.dump(main(), sys.stdout)
