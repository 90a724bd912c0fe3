"""The Temporal worker that executes DAG runs."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.worker import Worker
from temporalio.workflow import NondeterminismError

from temporal_airflow_nb.config import task_queue
from temporal_airflow_nb.orchestration import outbox, sync_activities
from temporal_airflow_nb.orchestration.activities import TaskActivities
from temporal_airflow_nb.orchestration.asset_watchers import AssetWatchers
from temporal_airflow_nb.orchestration.deadlines import DeadlineWatch
from temporal_airflow_nb.orchestration.deep_workflow import ExecuteAirflowDagDeepWorkflow, trigger_queue
from temporal_airflow_nb.orchestration.dispatcher import Dispatcher
from temporal_airflow_nb.orchestration.new_runs import NewRuns
from temporal_airflow_nb.orchestration.slots import SlotWatch
from temporal_airflow_nb.orchestration.trigger_activities import TriggerActivities
from temporal_airflow_nb.tasks.attempt import TaskRunner
from temporal_airflow_nb.tasks.client import DatabaseClient
from temporal_airflow_nb.tasks.triggers import Triggers
from temporal_airflow_nb.tasks.zygotes import Zygotes

log = structlog.get_logger(__name__)

_TRANSACTION_THREADS = 8
# Without one, the SDK hashes every loaded module to make one up: 0.7 s.
_BUILD_ID = "temporal-airflow-nb"


class AirflowWorker:
    """
    Executes workflows and tasks of one task queue, and delivers the outbox.

    Parameters
    ----------
    client
        Temporal's client.
    zygotes
        Where task processes come from.
    alone
        Whether no scheduler or triggerer of Airflow works on the same database.
    """

    def __init__(self, client: Client, zygotes: Zygotes, *, alone: bool) -> None:
        from airflow.configuration import conf

        max_tasks = conf.getint("core", "parallelism")
        self.zygotes = zygotes
        self.alone = alone
        self.runner = TaskRunner(zygotes, DatabaseClient())
        self.tasks = TaskActivities(self.runner, max_tasks)
        capacity = conf.getint("triggerer", "capacity")
        self.triggers = Triggers(zygotes, self.runner.client, capacity)
        self.deadlines = DeadlineWatch(self.runner, self.triggers)
        self.dispatcher = Dispatcher(client, task_queue())
        self._transactions = ThreadPoolExecutor(max_tasks + 1, thread_name_prefix="transaction")
        self.worker = Worker(
            client,
            task_queue=task_queue(),
            build_id=_BUILD_ID,
            identity=f"temporal-airflow@{os.getpid()}",
            workflows=[ExecuteAirflowDagDeepWorkflow],
            activities=[
                sync_activities.load_serialized_dag,
                sync_activities.ensure_task_instances,
                sync_activities.schedule_pass,
                sync_activities.sync_task_status_batch,
                sync_activities.sync_dagrun_status,
                self.tasks.run_airflow_task,
                self.tasks.run_callbacks,
            ],
            activity_executor=self._transactions,
            max_concurrent_activities=max_tasks,
            max_concurrent_local_activities=_TRANSACTION_THREADS,
            max_concurrent_workflow_tasks=4,
            default_heartbeat_throttle_interval=timedelta(seconds=1),
            max_heartbeat_throttle_interval=timedelta(seconds=3),
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
            graceful_shutdown_timeout=timedelta(seconds=1),
            workflow_failure_exception_types=[NondeterminismError],
        )
        self.trigger_worker = Worker(
            client,
            task_queue=trigger_queue(task_queue()),
            build_id=_BUILD_ID,
            identity=f"temporal-airflow@{os.getpid()}",
            activities=[TriggerActivities(self.triggers, self.runner.callbacks).run_trigger],
            max_concurrent_activities=capacity,
            max_heartbeat_throttle_interval=timedelta(seconds=1),
            graceful_shutdown_timeout=timedelta(seconds=1),
        )

    async def run(self) -> None:
        """Work until :meth:`stop` or until the task is cancelled."""
        # A task's way through the worker crosses six threads, each of which may find another one computing: a
        # thread that waits for the interpreter has it after half a millisecond instead of five.
        sys.setswitchinterval(0.0005)
        background = [asyncio.create_task(self.dispatcher.run()), asyncio.create_task(SlotWatch().run())]
        outbox.on_message(self.dispatcher.wake)
        if self.alone:
            background.append(asyncio.create_task(self.deadlines.run()))
            background.append(asyncio.create_task(NewRuns().run()))
            background.append(asyncio.create_task(AssetWatchers(self.triggers).run()))
            outbox.on_message(self.deadlines.wake)
        try:
            await asyncio.gather(self.worker.run(), self.trigger_worker.run())
        finally:
            for task in background:
                task.cancel()

    async def stop(self) -> None:
        """Stop taking work, stop the tasks that run, and end the zygotes."""
        await asyncio.gather(self.worker.shutdown(), self.trigger_worker.shutdown())
        await asyncio.to_thread(self.triggers.stop)
        self.zygotes.stop()
