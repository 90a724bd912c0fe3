"""Callbacks that Airflow runs outside the task: of DAG runs, and of tasks whose process was killed.

Airflow's scheduler leaves them as rows for the DAG processor. Here the worker takes the rows of its runs and runs
them in the same process that the DAG processor would use, so that they run where no DAG processor does.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import structlog
from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.models.db_callback_request import DbCallbackRequest
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState
from sqlalchemy import delete, select

from temporal_airflow_nb.tasks.dags import dag_bag
from temporal_airflow_nb.tasks.database import reading, transaction
from temporal_airflow_nb.tasks.supervisor import run_dag_processor
from temporal_airflow_nb.tasks.zygotes import DagFile, Zygotes

if TYPE_CHECKING:
    from airflow.sdk.api.client import Client

log = structlog.get_logger(__name__)


class Callbacks:
    """Runs the callbacks that wait in the database."""

    def __init__(self, zygotes: Zygotes, client: Client) -> None:
        self.zygotes = zygotes
        self.client = client

    def run_pending(self, dag_id: str, run_id: str) -> int:
        """Take the callback requests of one run and run them; return how many there were."""
        requests = self._take(dag_id, run_id)
        by_file = defaultdict(list)
        for request in requests:
            by_file[request.bundle_name, request.bundle_version, request.filepath].append(request)
        for (name, version, rel_path), callbacks in by_file.items():
            bundle = DagBundlesManager().get_bundle(name, version)
            bundle.initialize()
            path = os.fspath(bundle.path)
            run_dag_processor(
                self.zygotes,
                DagFile(name, version, path, os.path.join(path, rel_path)),
                rel_path=rel_path,
                client=self.client,
                logger=log.bind(dag_id=dag_id, run_id=run_id),
                callbacks=callbacks,
                shared=True,
            )
        return len(requests)

    def _take(self, dag_id: str, run_id: str) -> list[Any]:
        with reading() as session:
            rows = session.execute(select(DbCallbackRequest.id, DbCallbackRequest.data)).all()
        ids = [row.id for row in rows if _belongs_to_run(json.loads(row.data["req_data"]), dag_id, run_id)]
        if not ids:
            return []
        with transaction() as session:
            found = session.scalars(
                select(DbCallbackRequest)
                .where(DbCallbackRequest.id.in_(ids))
                .with_for_update(skip_locked=True)
            ).all()
            requests = [row.get_callback_request() for row in found]
            session.execute(
                delete(DbCallbackRequest).where(DbCallbackRequest.id.in_([row.id for row in found]))
            )
        return requests


def _belongs_to_run(request: dict[str, Any], dag_id: str, run_id: str) -> bool:
    owner = request.get("ti", request)
    return (owner["dag_id"], owner["run_id"]) == (dag_id, run_id)


class _EndedProcessExecutor:
    """What Airflow's scheduler asks of an executor, with one event to tell: this task's process has ended."""

    def __init__(self, key: TaskInstanceKey, state: TaskInstanceState) -> None:
        self.key = key
        self.state = state

    def __repr__(self) -> str:
        return "TemporalWorker"

    def get_event_buffer(self) -> dict[TaskInstanceKey, tuple[TaskInstanceState, str | None]]:
        return {self.key: (self.state, None)}

    def has_task(self, _: Any) -> bool:
        return False

    def send_callback(self, request: Any) -> None:
        # In the session that is shared with the scheduler's code, which this commits and closes as natively.
        DatabaseCallbackSink().send(request)


def record_ended_process(key: TaskInstanceKey, state: TaskInstanceState = TaskInstanceState.FAILED) -> None:
    """
    Do what Airflow's scheduler does when an executor tells in which ``state`` a task's process ended.

    A task that died without a word fails, or is retried; one that was cleared while it ran was to be ended, and may run
    again.
    """
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    with transaction(shared=True) as session:
        now = session.scalar(select(TaskInstance.state).filter_by(**key._asdict()).with_for_update())
        if now == TaskInstanceState.RESTARTING:
            state = TaskInstanceState.SUCCESS
        SchedulerJobRunner.process_executor_events(
            _EndedProcessExecutor(key, state),  # type: ignore[arg-type]
            job_id=None,
            scheduler_dag_bag=dag_bag(),
            session=session,
        )


def record_end_if_cleared(**columns: Any) -> None:
    """Record the end of a task instance's process, if it was cleared while it ran and nobody has recorded that."""
    with reading() as session:
        restarting = {**columns, "state": TaskInstanceState.RESTARTING}
        ti = session.scalar(select(TaskInstance).filter_by(**restarting))
    if ti is not None:
        record_ended_process(ti.key)
