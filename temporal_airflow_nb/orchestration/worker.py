"""The Temporal worker that executes DAG runs.

It runs in the gateway process of an embedded stack, or in the process of `temporal-airflow worker`. The event loop runs
the SDK's workers and the background loops; it never touches the database. Transactions run in the threads of
``_transactions`` or of :func:`asyncio.to_thread`; each task's supervisor has a thread of ``TaskActivities``. Tasks,
triggers and callbacks run in child processes.

The workers of Temporal's SDK decide when the process ends: :meth:`AirflowWorker.run` waits for them. Nothing waits for
the background loops or starts them again: each logs its errors and goes on.
"""

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
from temporal_airflow_nb.orchestration.failures import with_private_failures
from temporal_airflow_nb.orchestration.outbox import outbox, rollout
from temporal_airflow_nb.orchestration.outbox.worker_registry import WorkerRegistration
from temporal_airflow_nb.orchestration.run_creation.asset_watchers import AssetWatcherRunner
from temporal_airflow_nb.orchestration.run_creation.deadlines import DeadlineWatcher
from temporal_airflow_nb.orchestration.run_creation.triggered_runs import TriggeredRunCreator
from temporal_airflow_nb.orchestration.schedules.synchronizer import ScheduleSynchronizer
from temporal_airflow_nb.orchestration.schedules.workflow import CreateDueDagRunsWorkflow
from temporal_airflow_nb.orchestration.scheduling import airflow_queues
from temporal_airflow_nb.orchestration.scheduling.pool_slots import SlotWatcher
from temporal_airflow_nb.orchestration.workflow.deep_workflow import ExecuteAirflowDagDeepWorkflow
from temporal_airflow_nb.tasks.attempt import TaskRunner
from temporal_airflow_nb.tasks.client import DatabaseClient
from temporal_airflow_nb.tasks.triggers import Triggers
from temporal_airflow_nb.tasks.zygotes import Zygotes

log = structlog.get_logger(__name__)

_MAX_CONCURRENT_TRANSACTIONS = 8
_DEADLOCK_SECONDS = 60
_CHECK_QUEUES_SECONDS = 15.0
_HEARTBEATS = {
    "default_heartbeat_throttle_interval": timedelta(seconds=1),
    "max_heartbeat_throttle_interval": timedelta(seconds=3),
}
# Without a build id, the SDK hashes every loaded module to compute one, which takes 0.7 s.
_BUILD_ID = "temporal-airflow-nb"


class AirflowWorker:
    """
    The workers of Temporal's SDK for Airflow's queues, and the loops beside them.

    A worker that serves the default queue executes the workflows as well.

    Parameters
    ----------
    client
        Temporal's client.
    zygotes
        Starts the task processes.
    has_scheduler
        Whether Airflow's scheduler runs on the same database.
    has_triggerer
        Whether Airflow's triggerer runs on the same database.
    queues
        Names of the Airflow queues to serve; if None, every queue, each from its first task on.
    """

    def __init__(
        self,
        client: Client,
        zygotes: Zygotes,
        *,
        has_scheduler: bool,
        has_triggerer: bool,
        queues: Sequence[str] | None = None,
    ) -> None:
        from airflow.configuration import conf

        max_tasks = conf.getint("core", "parallelism")
        self.client = with_private_failures(client)
        self.zygotes = zygotes
        self.has_scheduler = has_scheduler
        self.has_triggerer = has_triggerer
        if not has_scheduler:
            rollout.manage_every_dag()
        self.runner = TaskRunner(zygotes, DatabaseClient())
        self.tasks = TaskActivities(self.runner, max_tasks)
        capacity = conf.getint("triggerer", "capacity")
        self.triggers = Triggers(zygotes, self.runner.client, capacity)
        self.deadlines = DeadlineWatcher(self.runner, self.triggers, has_scheduler=has_scheduler)
        self.dispatcher = Dispatcher(client, task_queue())
        self.schedules = ScheduleSynchronizer(client)
        self._max_tasks = max_tasks
        # For the local activities, of which `_MAX_CONCURRENT_TRANSACTIONS` run at a time. It has more threads only
        # because the SDK warns about an executor with fewer threads than `max_concurrent_activities`; those activities
        # are coroutines and need none.
        self._transactions = ThreadPoolExecutor(max_tasks + 1, thread_name_prefix="transaction")
        self._serves_every_queue = queues is None
        self._executes_workflows = queues is None or airflow_queues.default_queue() in queues
        self._served = {airflow_queues.default_queue(), *(queues or ())}
        self._workers = [
            self._queue_worker(queue) for queue in sorted(self._served - {airflow_queues.default_queue()})
        ]
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
            max_concurrent_local_activities=_MAX_CONCURRENT_TRANSACTIONS,
            max_concurrent_workflow_tasks=4,
            # After a worker has died, the next step of its workflows waits this long before another worker gets it.
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
            # The SDK would otherwise try such a step again without end. A workflow that fails is started again by the
            # dispatcher, with a new history.
            workflow_failure_exception_types=[NondeterminismError],
            **_HEARTBEATS,
        )
        # Private part of Temporal's SDK. A workflow that takes more than two seconds for one step counts as deadlocked.
        # The workflow here never blocks, but on a busy machine a step can take longer; with timers pending the SDK
        # would then never evict the workflow.
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
        """Serve each queue from its first task on, whichever process ran the scheduling pass."""
        loop = asyncio.get_running_loop()
        announced: asyncio.Queue[str] = asyncio.Queue()
        # Passes run in threads of `_transactions`; an asyncio queue may be used on the event loop only.
        airflow_queues.add_listener(lambda queue: loop.call_soon_threadsafe(announced.put_nowait, queue))
        while True:
            try:
                queues = {await asyncio.wait_for(announced.get(), _CHECK_QUEUES_SECONDS)}
            except asyncio.TimeoutError:
                # Passes of other processes announce nothing here; the database has their tasks.
                queues = set(await self._waiting_tasks())
            # `_served`, `_workers` and `_running` change on the event loop only, and need no lock.
            for queue in sorted(queues - self._served):
                self._served.add(queue)
                self._workers.append(worker := self._queue_worker(queue))
                self._running.append(asyncio.create_task(worker.run()))

    async def _warn_of_unserved_queues(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_QUEUES_SECONDS)
            queues = await self._waiting_tasks()
            try:
                unserved = await airflow_queues.list_unserved(self.client, queues)
            except RPCError as error:
                log.warning("Could not ask Temporal which queues are served; trying again", error=repr(error))
                continue
            for queue in unserved:
                log.warning(
                    f"Tasks wait for a worker. Start one with `temporal-airflow worker --queues {queue}`.",
                    queue=queue,
                    tasks=queues[queue],
                )

    async def _waiting_tasks(self) -> dict[str, int]:
        try:
            return await asyncio.to_thread(airflow_queues.count_waiting_tasks)
        except SQLAlchemyError as error:
            log.warning("Could not read the queues from the database; trying again", error=repr(error))
            return {}

    async def run(self) -> None:
        """Work until :meth:`stop` or until the task is cancelled."""
        # A task passes through six threads of the worker, and in each it may have to wait until another thread gives
        # up the GIL: for half a millisecond instead of the default five.
        sys.setswitchinterval(0.0005)
        background = [WorkerRegistration(self.client, [worker.task_queue for worker in self._workers]).run()]
        if self._executes_workflows:
            background += [self.dispatcher.run(), SlotWatcher().run(), self._warn_of_unserved_queues()]
            background.append(self.schedules.run() if native_scheduling() else self.schedules.delete_all())
            outbox.add_listener(self.dispatcher.wake)
        if self._serves_every_queue:
            background.append(self._serve_new_queues())
        if not self.has_scheduler:
            background.append(TriggeredRunCreator().run())
        if not self.has_triggerer:
            background += [self.deadlines.run(), AssetWatcherRunner(self.triggers).run()]
            outbox.add_listener(self.deadlines.wake)
        # The list keeps the tasks alive: the event loop itself has only weak references to them.
        background_tasks = [asyncio.create_task(coroutine) for coroutine in background]
        self._running += [asyncio.create_task(worker.run()) for worker in self._workers]
        try:
            await asyncio.gather(*self._running)
        finally:
            for task in background_tasks:
                task.cancel()

    async def stop(self) -> None:
        """Stop taking work, stop the tasks that run, and end the zygotes."""
        # The zygotes end last: the shutdown waits for tries and callbacks that run in processes forked from them.
        await asyncio.gather(*(worker.shutdown() for worker in self._workers))
        await asyncio.to_thread(self.triggers.stop)
        self.zygotes.stop()
