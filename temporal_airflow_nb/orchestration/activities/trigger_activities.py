"""The activity that runs the trigger of a deferred task.

It is a coroutine on the worker's event loop. The trigger itself runs in a process that a thread of ``Triggers``
supervises: that thread sets the result of the future that the activity waits for. Several activities may wait for the
same trigger, and share its future.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import exists, select
from temporalio import activity

from temporal_airflow_nb.orchestration.activities.task_activities import worker_lost
from temporal_airflow_nb.orchestration.workflow.models import RunTrigger
from temporal_airflow_nb.tasks.callbacks import Callbacks
from temporal_airflow_nb.tasks.database import reading
from temporal_airflow_nb.tasks.triggers import Triggers

_ON_KILL_SECONDS = 60.0


class TriggerActivities:
    """
    The worker's activity for triggers.

    Parameters
    ----------
    triggers
        Runs the triggers.
    callbacks
        Runs the callbacks of tasks that a trigger ended without a worker process.
    """

    def __init__(self, triggers: Triggers, callbacks: Callbacks) -> None:
        self.triggers = triggers
        self.callbacks = callbacks

    @activity.defn
    async def run_trigger(self, request: RunTrigger) -> None:
        """
        Run a trigger until the event that it fired is in the database.

        A further attempt, after a worker was lost, restarts the trigger, as Airflow's triggerers do.
        """
        fired = self.triggers.start(request.trigger_id)
        if await self._wait(fired, request):
            await asyncio.to_thread(self.callbacks.run_pending, request.dag_id, request.run_id)

    async def _wait(self, fired: Future[bool], request: RunTrigger) -> bool:
        timeout = activity.info().heartbeat_timeout
        # `start_trigger` always sets it, depending on the number of triggers.
        assert timeout is not None
        waiting = asyncio.wrap_future(fired)
        try:
            while True:
                activity.heartbeat()
                done, _ = await asyncio.wait([waiting], timeout=timeout.total_seconds() / 10)
                if done:
                    return waiting.result()
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is not None and details.worker_shutdown:
                raise worker_lost("The worker was shut down.") from None
            if (
                details is None
                or details.cancel_requested
                or not await asyncio.to_thread(_is_wanted, request)
            ):
                await self._cancel(request.trigger_id, fired)
            # Otherwise the trigger goes on: for example, the workflow has continued as new, and its new execution waits
            # for the same trigger.
            raise

    async def _cancel(self, trigger_id: int, fired: Future[bool]) -> None:
        # The trigger's `on_kill` may take a while; the activity waits so that it counts as running for so long.
        self.triggers.cancel(trigger_id)
        # `wait_for` would cancel `fired` when the time is over: the thread of `Triggers` then fails to set its result,
        # ends the triggers' process and starts every trigger again.
        await asyncio.wait([asyncio.wrap_future(fired)], timeout=_ON_KILL_SECONDS)


def _is_wanted(request: RunTrigger) -> bool:
    wanted = exists().where(
        TaskInstance.dag_id == request.dag_id,
        TaskInstance.run_id == request.run_id,
        TaskInstance.trigger_id == request.trigger_id,
        TaskInstance.state == TaskInstanceState.DEFERRED,
    )
    with reading() as session:
        return bool(session.scalar(select(wanted)))
