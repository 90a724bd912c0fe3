"""Runs the callbacks that Airflow runs outside the task: of DAG runs, and of tasks whose process was killed.

Airflow's scheduler stores them as rows for the DAG processor. The worker takes the rows of its runs and runs them with
the DAG processor's own code in a process of a zygote, so that they also run where no DAG processor does. Every function
here is called in the thread that runs a try or closes a run.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import structlog
from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
from airflow.configuration import conf
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
    """Runs the callbacks that are stored in the database."""

    def __init__(self, zygotes: Zygotes, client: Client) -> None:
        self.zygotes = zygotes
        self.client = client

    def run_pending(self, dag_id: str, run_id: str) -> int:
        """Delete the callback requests of one run from the database, run them, and return their number."""
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
                timeout=conf.getfloat("dag_processor", "dag_file_processor_timeout"),
            )
        return len(requests)

    def _take(self, dag_id: str, run_id: str) -> list[Any]:
        # The run is named only inside the JSON column. The search reads without a lock; the rows are locked, and read
        # again, below.
        with reading() as session:
            rows = session.execute(select(DbCallbackRequest.id, DbCallbackRequest.data)).all()
        ids = [row.id for row in rows if _belongs_to_run(json.loads(row.data["req_data"]), dag_id, run_id)]
        if not ids:
            return []
        # `skip_locked`: a DAG processor on the same database may take the same rows. Whoever deletes one runs it.
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
    """Stands in for an executor towards Airflow's scheduler code, with one event: a task's process has ended."""

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
        # Uses this thread's scoped session, which is also the scheduler code's, and commits and closes it, as in
        # Airflow's scheduler. `transaction(shared=True)` keeps the threads' lock meanwhile.
        DatabaseCallbackSink().send(request)


def record_ended_process(key: TaskInstanceKey, state: TaskInstanceState = TaskInstanceState.FAILED) -> None:
    """
    Do what Airflow's scheduler does when an executor reports the ``state`` in which a task's process ended.

    A task whose process died without a report fails or is retried. A task that was cleared while it ran may run again.
    """
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    # `process_executor_events` stores callbacks through this thread's scoped session: it has to be the same session.
    with transaction(shared=True) as session:
        now = session.scalar(select(TaskInstance.state).filter_by(**key._asdict()).with_for_update())
        # For a cleared task `process_executor_events` wants "success": it then empties the state, so that the task is
        # scheduled again.
        if now == TaskInstanceState.RESTARTING:
            state = TaskInstanceState.SUCCESS
        SchedulerJobRunner.process_executor_events(
            _EndedProcessExecutor(key, state),
            job_id=None,
            scheduler_dag_bag=dag_bag(),
            session=session,
        )


def record_end_if_cleared(**columns: Any) -> None:
    """Record the end of a task instance's process if the task was cleared while it ran and the end is unrecorded."""
    with reading() as session:
        restarting = {**columns, "state": TaskInstanceState.RESTARTING}
        ti = session.scalar(select(TaskInstance).filter_by(**restarting))
    if ti is not None:
        record_ended_process(ti.key)
