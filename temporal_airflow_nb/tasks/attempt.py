"""Runs one try of one task, from the row in the database to the recorded outcome.

The worker process calls :meth:`TaskRunner.run` in a thread per try. That thread gets a task process from a zygote,
serves the process's requests with Airflow's own supervisor until the process has ended, and records the end. Each task
process leads a process group, so that a signal to the group reaches everything that the task has started in it.

All state of a try is in the database: a try whose worker died is run again from its row.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from airflow.configuration import conf
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.executors.workloads import ExecuteTask
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.sdk.api.client import ServerResponseError
from airflow.sdk.execution_time.coordinator import _PythonCoordinator, get_coordinator_manager
from airflow.sdk.execution_time.supervisor import _configure_logging
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select, update
from sqlalchemy.orm import joinedload

from temporal_airflow_nb.config.environment import new_interpreters
from temporal_airflow_nb.tasks.callbacks import Callbacks, record_end_if_cleared, record_ended_process
from temporal_airflow_nb.tasks.database import reading, transaction
from temporal_airflow_nb.tasks.supervisor import TaskSupervisor, start_interpreter
from temporal_airflow_nb.tasks.zygotes import DagFile, Zygotes

if TYPE_CHECKING:
    from temporal_airflow_nb.tasks.client import DatabaseClient

log = structlog.get_logger(__name__)

EXECUTOR_SETTINGS = ("executor", "executor_config")
NO_EXECUTOR = "a worker of Temporal runs it, not an executor. Choose workers with the task's `queue`."

_NO_LONGER_WANTED = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE})


@dataclass(frozen=True)
class TaskKey:
    """Identifies one try of one task of one run.

    The task instance's UUID isn't used: Airflow changes it on each retry and each clear.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int


@dataclass(frozen=True)
class Interruption:
    """The number of times that this try was lost with its worker or zygote, and the number allowed."""

    lost: int
    limit: int


class StoppedError(Exception):
    """A user or Temporal stopped the try; its outcome isn't recorded."""


class TaskRunner:
    """
    Runs tries, one per call of :meth:`run`, in the calling thread. A worker has one for all its tasks.

    Parameters
    ----------
    zygotes
        Starts the task processes.
    client
        Answers the requests of task processes from the database.
    """

    def __init__(self, zygotes: Zygotes, client: DatabaseClient) -> None:
        self.zygotes = zygotes
        self.client = client
        self.callbacks = Callbacks(zygotes, client)

    def run(
        self,
        key: TaskKey,
        *,
        wakeup: socket.socket,
        should_stop: Callable[[], bool],
        interruption: Interruption | None = None,
        own_interpreter: bool = False,
    ) -> None:
        """
        Run one try to its end and record the outcome in the database.

        A try that isn't queued is left alone: it has run already, or a user has cleared or marked the task.

        Parameters
        ----------
        key
            The try.
        wakeup
            Becomes readable when ``should_stop`` may have changed.
        should_stop
            Whether to end the task's process.
        interruption
            Set if an earlier attempt at this try was lost.
        own_interpreter
            Whether to start a new interpreter for the task instead of forking a zygote.

        Raises
        ------
        StoppedError
            ``should_stop`` returned True before the try had ended.
        ZygoteLostError
            The task's zygote died during the try; the try may be run again.
        """
        claimed = self._claim(key, interrupted=interruption is not None)
        if claimed is None:
            if interruption is not None:
                # The task may have been cleared while the lost worker ran it. Then nobody has recorded the end of its
                # process yet, and its callbacks may still be in the database.
                record_end_if_cleared(**asdict(key))
                self.callbacks.run_pending(key.dag_id, key.run_id)
            return
        workload, ignored = claimed
        bundle = DagBundlesManager().get_bundle(workload.bundle_info.name, workload.bundle_info.version)
        bundle.initialize()
        logger, log_file = _configure_logging(workload.log_path, self.client)
        try:
            if ignored:
                logger.warning(f"Ignoring {' and '.join(ignored)} of this task: {NO_EXECUTOR}")
            if interruption is not None:
                logger.warning(
                    "The worker was lost while this try was running; running the try again",
                    rerun=interruption.lost,
                    at_most=interruption.limit,
                )
            with self.client.serving_task(workload.ti.id):
                end = self._supervise(
                    workload, os.fspath(bundle.path), logger, wakeup, should_stop, own_interpreter
                )
        finally:
            log_file.close()
        if end is not None:
            record_ended_process(TaskInstanceKey(**asdict(key)), end)
            self.callbacks.run_pending(key.dag_id, key.run_id)

    def _claim(self, key: TaskKey, *, interrupted: bool) -> tuple[ExecuteTask, list[str]] | None:
        """Return Airflow's workload for the try, and the task's settings that a worker ignores; None if not queued.

        Nothing is reserved here: Airflow's ``ti_run``, called for the task's process, moves the row from queued to
        running, and refuses a second process.
        """
        # A lost attempt left the row running. The try is run again with the same number, so that no Airflow retry is
        # used up; a row in any other state has changed since and is left alone.
        if interrupted:
            with transaction() as session:
                session.execute(
                    update(TaskInstance)
                    .where(
                        _matches(key),
                        TaskInstance.try_number == key.try_number,
                        TaskInstance.state == TaskInstanceState.RUNNING,
                    )
                    .values(state=TaskInstanceState.QUEUED)
                    .execution_options(synchronize_session=False)
                )
        with reading() as session:
            ti = session.scalar(
                select(TaskInstance)
                .where(
                    _matches(key),
                    TaskInstance.try_number == key.try_number,
                    TaskInstance.state == TaskInstanceState.QUEUED,
                )
                .options(joinedload(TaskInstance.dag_run), joinedload(TaskInstance.dag_model))
            )
            if ti is None:
                return None
            return ExecuteTask.make(ti), [name for name in EXECUTOR_SETTINGS if getattr(ti, name)]

    def _supervise(
        self,
        workload: ExecuteTask,
        bundle_path: str,
        logger: Any,
        wakeup: socket.socket,
        should_stop: Callable[[], bool],
        own_interpreter: bool,
    ) -> TaskInstanceState | None:
        """
        Start the task's process, serve it to its end, and report that end if the database doesn't have it.

        Returns
        -------
        TaskInstanceState or None
            The state that an Airflow executor would report for the process; None if the try's end is recorded.
        """
        rel_path = os.fspath(workload.dag_rel_path)
        coordinator = get_coordinator_manager().for_queue(workload.ti.queue or "default")
        # Airflow's coordinators for other languages start and serve their processes themselves.
        if not isinstance(coordinator, _PythonCoordinator):
            coordinator.execute_task(
                what=workload.ti,
                dag_rel_path=rel_path,
                bundle_info=workload.bundle_info,
                client=self.client,
                logger=logger,
                subprocess_logs_to_stdout=False,
            )
            return None
        if own_interpreter or _needs_own_interpreter():
            child, pipes = start_interpreter(self.zygotes.env)
        else:
            file = DagFile(
                workload.bundle_info.name,
                workload.bundle_info.version,
                bundle_path,
                os.path.join(bundle_path, rel_path),
            )
            child, pipes = self.zygotes.spawn("task", file)
            if obstacle := self.zygotes.obstacle(file):
                logger.info("Importing all packages of the DAG file in this process", reason=obstacle)
        try:
            supervisor = TaskSupervisor.start_try(
                what=workload.ti,
                dag_rel_path=rel_path,
                bundle_info=workload.bundle_info,
                client=self.client,
                logger=logger,
                child=child,
                pipes=pipes,
                wakeup=wakeup,
                should_stop=should_stop,
            )
            supervisor.wait()
        except BaseException as error:
            # Also on ZygoteLostError, when nobody reaps the process: the group must not outlive this attempt.
            child.kill_group()
            # Airflow's `ti_run` refused the start: the try was cleared, marked or deleted after it was claimed.
            if isinstance(error, ServerResponseError) and error.response.status_code in _NO_LONGER_WANTED:
                return TaskInstanceState.FAILED
            raise
        finally:
            for end in (*pipes, child):
                end.close()
        if supervisor.stopped:
            raise StoppedError(workload.display_name)
        return TaskInstanceState.SUCCESS if supervisor.end_is_unrecorded else None


def _needs_own_interpreter() -> bool:
    """
    Return whether every task needs a new interpreter.

    That is the case on macOS, where forks aren't safe, for tasks of other users, and if the worker's environment asks
    for it.
    """
    return (
        sys.platform == "darwin"
        or new_interpreters()
        or bool(conf.get("core", "default_impersonation", fallback=""))
    )


def _matches(key: TaskKey) -> Any:
    return (
        (TaskInstance.dag_id == key.dag_id)
        & (TaskInstance.run_id == key.run_id)
        & (TaskInstance.task_id == key.task_id)
        & (TaskInstance.map_index == key.map_index)
    )
