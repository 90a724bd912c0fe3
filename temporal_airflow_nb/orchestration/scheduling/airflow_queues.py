"""Airflow's queues: how many tasks wait in each, and which of them no worker serves.

The functions that query the database run in threads of the worker, those that ask Temporal on its event loop.
"""

from __future__ import annotations

from collections.abc import Callable

from airflow.configuration import conf
from airflow.models.taskinstance import TaskInstance as TI
from airflow.utils.state import TaskInstanceState
from sqlalchemy import func, select
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from temporal_airflow_nb.config.environment import task_queue, task_queue_of
from temporal_airflow_nb.tasks.database import reading

# Filled while the worker starts, and never changed after that, so that threads read it without a lock.
_listeners: list[Callable[[str], object]] = []


def default_queue() -> str:
    """Return the queue of tasks that name none, ``[operators] default_queue``."""
    queue: str = conf.get_mandatory_value("operators", "default_queue")
    return queue


def add_listener(listener: Callable[[str], object]) -> None:
    """Call ``listener`` with each queue that a pass sends tasks to, in the thread of the pass."""
    _listeners.append(listener)


def announce(queue: str) -> None:
    """Call the listeners: a task is sent to ``queue``, which isn't the default one."""
    for listener in _listeners:
        listener(queue)


def count_waiting_tasks() -> dict[str, int]:
    """Return the number of tasks that wait in each queue other than the default one."""
    with reading() as session:
        rows = session.execute(
            select(TI.queue, func.count())
            .where(TI.state == TaskInstanceState.QUEUED, TI.queue.is_not(None), TI.queue != default_queue())
            .group_by(TI.queue)
        )
        return dict(sorted((queue, count) for queue, count in rows))


async def list_unserved(client: Client, queues: dict[str, int]) -> list[str]:
    """Return the ``queues`` that no worker has polled lately, according to Temporal's server."""
    unserved = []
    for queue in queues:
        answer = await client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=client.namespace,
                task_queue=TaskQueue(name=task_queue_of(task_queue(), queue)),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            )
        )
        if not answer.pollers:
            unserved.append(queue)
    return unserved
