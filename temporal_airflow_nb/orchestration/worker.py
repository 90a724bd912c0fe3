"""The Temporal worker that executes DAG runs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker
from temporalio.workflow import NondeterminismError

from temporal_airflow_nb.config.environment import native_scheduling, task_queue, task_queue_of, trigger_queue
from temporal_airflow_nb.orchestration.activities import sync_activities
from temporal_airflow_nb.orchestration.activities.schedule_activities import create_due_runs
from temporal_airflow_nb.orchestration.activities.task_activities import TaskActivities
from temporal_airflow_nb.orchestration.activities.trigger_activities import TriggerActivities
from temporal_airflow_nb.orchestration.dispatcher import Dispatcher
from temporal_airflow_nb.orchestration.outbox import outbox, rollout
from temporal_airflow_nb.orchestration.outbox.worker_registry import WorkerRegistration
from temporal_airflow_nb.orchestration.run_creation.asset_watchers import AssetWatchers
from temporal_airflow_nb.orchestration.run_creation.deadlines import DeadlineWatch
from temporal_airflow_nb.orchestration.run_creation.triggered_runs import TriggeredRuns
from temporal_airflow_nb.orchestration.schedules.synchronizer import ScheduleSynchronizer
from temporal_airflow_nb.orchestration.schedules.workflow import CreateDueDagRunsWorkflow
from temporal_airflow_nb.orchestration.scheduling.pool_slots import SlotWatch
from temporal_airflow_nb.orchestration.scheduling.queues import default_queue, on_queue, unserved, waiting
from temporal_airflow_nb.orchestration.workflow.deep_workflow import ExecuteAirflowDagDeepWorkflow
from temporal_airflow_nb.tasks.attempt import TaskRunner
from temporal_airflow_nb.tasks.client import DatabaseClient
from temporal_airflow_nb.tasks.triggers import Triggers
from temporal_airflow_nb.tasks.zygotes import Zygotes

log = structlog.get_logger(__name__)

_TRANSACTION_THREADS = 8
_DEADLOCK_SECONDS = 60
_LOOK_AGAIN = 15.0
_HEARTBEATS: dict[str, Any] = {
    "default_heartbeat_throttle_interval": timedelta(seconds=1),
    "max_heartbeat_throttle_interval": timedelta(seconds=3),
}
# Without one, the SDK hashes every loaded module to make one up: 0.7 s.
_BUILD_ID = "temporal-airflow-nb"


class AirflowWorker:
    """
    Executes the tasks of Airflow queues; the one that serves the default queue executes the workflows as well.

    Parameters
    ----------
    client
        Temporal's client.
    zygotes
        Where task processes come from.
    alone
        Whether no scheduler of Airflow works on the same database.
    triggerer
        Whether a triggerer of Airflow does.
    queues
        Names of the Airflow queues to serve; every one, from its first task on, if None.
    """

    def __init__(
        self,
        client: Client,
        zygotes: Zygotes,
        *,
        alone: bool,
        triggerer: bool,
        queues: Sequence[str] | None = None,
    ) -> None:
        from airflow.configuration import conf

        max_tasks = conf.getint("core", "parallelism")
        self.client = client
        self.zygotes = zygotes
        self.alone = alone
        self.triggerer = triggerer
        if alone:
            rollout.take_everything()
        self.runner = TaskRunner(zygotes, DatabaseClient())
        self.tasks = TaskActivities(self.runner, max_tasks)
        capacity = conf.getint("triggerer", "capacity")
        self.triggers = Triggers(zygotes, self.runner.client, capacity)
        self.deadlines = DeadlineWatch(self.runner, self.triggers, alone=alone)
        self.dispatcher = Dispatcher(client, task_queue())
        self.schedules = ScheduleSynchronizer(client)
        self._max_tasks = max_tasks
        self._transactions = ThreadPoolExecutor(max_tasks + 1, thread_name_prefix="transaction")
        self._serves_every_queue = queues is None
        self._executes_workflows = queues is None or default_queue() in queues
        self._served = {default_queue(), *(queues or ())}
        self._workers = [self._queue_worker(queue) for queue in sorted(self._served - {default_queue()})]
        if self._executes_workflows:
            self._workers += [self._main_worker(), self._trigger_worker(capacity)]
        self._running: list[asyncio.Task[None]] = []

    def _new_worker(self, name: str, **options: Any) -> Worker:
        return Worker(
            self.client,
            task_queue=name,
            build_id=_BUILD_ID,
            identity=f"temporal-airflow@{os.getpid()}",
            graceful_shutdown_timeout=timedelta(seconds=1),
            **options,
        )

    def _main_worker(self) -> Worker:
        worker = self._new_worker(
            task_queue(),
            workflows=[ExecuteAirflowDagDeepWorkflow, CreateDueDagRunsWorkflow],
            activities=[
                sync_activities.load_serialized_dag,
                sync_activities.ensure_task_instances,
                sync_activities.schedule_pass,
                sync_activities.sync_task_status_batch,
                sync_activities.sync_dagrun_status,
                create_due_runs,
                self.tasks.run_airflow_task,
                self.tasks.run_callbacks,
            ],
            activity_executor=self._transactions,
            max_concurrent_activities=self._max_tasks,
            max_concurrent_local_activities=_TRANSACTION_THREADS,
            max_concurrent_workflow_tasks=4,
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
            workflow_failure_exception_types=[NondeterminismError],
            **_HEARTBEATS,
        )
        # The workflow never blocks. On a busy machine the SDK would take it for deadlocked after two seconds and,
        # with timers pending, never get rid of it.
        worker._workflow_worker._deadlock_timeout_seconds = _DEADLOCK_SECONDS  # type: ignore[union-attr]
        return worker

    def _trigger_worker(self, capacity: int) -> Worker:
        return self._new_worker(
            trigger_queue(task_queue()),
            activities=[TriggerActivities(self.triggers, self.runner.callbacks).run_trigger],
            max_concurrent_activities=capacity,
            max_heartbeat_throttle_interval=timedelta(seconds=1),
        )

    def _queue_worker(self, queue: str) -> Worker:
        return self._new_worker(
            task_queue_of(task_queue(), queue),
            activities=[self.tasks.run_airflow_task],
            max_concurrent_activities=self._max_tasks,
            **_HEARTBEATS,
        )

    async def _serve_new_queues(self) -> None:
        """Serve each queue from its first task on, whether a pass here or in another process has sent it."""
        loop = asyncio.get_running_loop()
        sent: asyncio.Queue[str] = asyncio.Queue()
        on_queue(lambda queue: loop.call_soon_threadsafe(sent.put_nowait, queue))
        while True:
            try:
                queues = {await asyncio.wait_for(sent.get(), _LOOK_AGAIN)}
            except asyncio.TimeoutError:
                queues = set(await self._waiting_tasks())
            for queue in sorted(queues - self._served):
                self._served.add(queue)
                self._workers.append(worker := self._queue_worker(queue))
                self._running.append(asyncio.create_task(worker.run()))

    async def _warn_of_unserved_queues(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AGAIN)
            queues = await self._waiting_tasks()
            try:
                lonely = await unserved(self.client, queues)
            except RPCError as error:
                log.warning("Could not ask Temporal who serves the queues; trying again", error=repr(error))
                continue
            for queue in lonely:
                log.warning(
                    f"Tasks wait for a worker: start one with `temporal-airflow worker --queues {queue}`",
                    queue=queue,
                    tasks=queues[queue],
                )

    async def _waiting_tasks(self) -> dict[str, int]:
        try:
            return await asyncio.to_thread(waiting)
        except SQLAlchemyError as error:
            log.warning("Could not look at the queues; trying again", error=repr(error))
            return {}

    async def run(self) -> None:
        """Work until :meth:`stop` or until the task is cancelled."""
        # A task's way through the worker crosses six threads, each of which may find another one computing: a
        # thread that waits for the interpreter has it after half a millisecond instead of five.
        sys.setswitchinterval(0.0005)
        background = [WorkerRegistration(self.client, [worker.task_queue for worker in self._workers]).run()]
        if self._executes_workflows:
            background += [self.dispatcher.run(), SlotWatch().run(), self._warn_of_unserved_queues()]
            background.append(self.schedules.run() if native_scheduling() else self.schedules.clear())
            outbox.on_message(self.dispatcher.wake)
        if self._serves_every_queue:
            background.append(self._serve_new_queues())
        if self.alone:
            background.append(TriggeredRuns().run())
        if not self.triggerer:
            background += [self.deadlines.run(), AssetWatchers(self.triggers).run()]
            outbox.on_message(self.deadlines.wake)
        helping = [asyncio.create_task(coroutine) for coroutine in background]
        self._running += [asyncio.create_task(worker.run()) for worker in self._workers]
        try:
            await asyncio.gather(*self._running)
        finally:
            for task in helping:
                task.cancel()

    async def stop(self) -> None:
        """Stop taking work, stop the tasks that run, and end the zygotes."""
        await asyncio.gather(*(worker.shutdown() for worker in self._workers))
        await asyncio.to_thread(self.triggers.stop)
        self.zygotes.stop()
