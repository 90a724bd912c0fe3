"""The workflow that executes a DAG run, with Airflow's database as its source of truth.

It takes no decisions: each scheduling pass is a local activity in which Airflow decides, and the workflow starts, waits
for and stops what the pass returned. One pass runs at a time; tasks that end meanwhile go to the next pass.

The workflow runs in the worker that serves the default queue. All its methods run in one thread at a time and yield
only at ``await``, so that its fields need no lock. It may use neither clocks nor random numbers nor I/O of its own:
after the loss of a worker it is replayed from its history, and must issue the same commands in the same order.
Callbacks of activities (``_ended``, ``_trigger_ended``), timers and signals only note what happened; ``_step`` acts on
it.

Workflows that are open when the package is updated are replayed with the new code: a change of the order or the names
of commands (activities, timers, search attributes) fails them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypedDict

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    is_cancelled_exception,
)

from temporal_airflow_nb.orchestration.workflow.activity_calls import (
    describe_failure,
    run_callbacks,
    run_transaction,
    start_trigger,
    start_try,
)
from temporal_airflow_nb.orchestration.workflow.grid_encoding import unpack
from temporal_airflow_nb.orchestration.workflow.grid_memory import GridMemory
from temporal_airflow_nb.orchestration.workflow.models import (
    DEEP_WORKFLOW,
    DELETED,
    FINAL_RUN_STATES,
    RESYNC_SIGNAL,
    RUN_GONE,
    RUNNING,
    WAKE_SIGNAL,
    DagRunInput,
    DagRunResult,
    Key,
    LoadedDag,
    PassInput,
    PassResult,
    RunFinished,
    RunStatus,
    TaskFailure,
    TaskFailures,
    TaskTry,
    Timer,
)

DAG_ID = SearchAttributeKey.for_keyword("AirflowDagId")
RUN_ID = SearchAttributeKey.for_keyword("AirflowRunId")
STATE = SearchAttributeKey.for_keyword("AirflowState")

# While nothing is in progress, the run is evaluated again after this time, then after twice as long, and so on.
_FIRST_IDLE_WAIT = timedelta(seconds=15)
_MAX_IDLE_WAIT = timedelta(minutes=10)
# A margin below the server's limit of 2,000, at which it would refuse the workflow's step.
_MAX_PENDING_ACTIVITIES = 1_900


class Progress(TypedDict):
    """The answer to the query ``progress``."""

    dag_id: str
    run_id: str
    state: str
    tasks: dict[str, int]


class Grid(TypedDict):
    """The answer to the query ``grid``."""

    run: dict[str, str | float | None]
    structure: str | None
    tasks: str


@workflow.defn(name=DEEP_WORKFLOW, sandboxed=False)
class ExecuteAirflowDagDeepWorkflow:
    """Executes one DAG run; see :mod:`temporal_airflow_nb.orchestration.workflow.deep_workflow`."""

    @workflow.init
    def __init__(self, run: DagRunInput) -> None:
        self._run = run
        self._grid = GridMemory(run.grid)
        self._state = RUNNING
        self._dag = LoadedDag(0)
        # What is in progress: activities of tries and of triggers, and timers.
        self._in_flight: dict[Key, workflow.ActivityHandle[Any]] = {}
        self._tries: dict[Key, TaskTry] = {}
        self._triggers: dict[Key, tuple[int, workflow.ActivityHandle[Any]]] = {}
        self._timers: dict[Key, tuple[Timer, asyncio.Task[None]]] = {}
        # Decisions of a pass that have to wait until an activity may start.
        self._held: list[TaskTry] = []
        self._held_triggers: dict[Key, int] = {}
        # Events for the next step. None of them is saved by a continuation as new, which begins with a resync instead.
        self._finished: list[Key] = []
        self._failures: list[TaskFailure] = []
        self._cancelled: list[Key] = []
        self._due: list[Key] = []
        self._timed_out = False
        self._tasks_to_check: dict[str, None] = {}
        self._woken = False
        self._resync = True
        self._idle_wait = _FIRST_IDLE_WAIT
        self._grid.put(run.states)

    @workflow.run
    async def run(self, run: DagRunInput) -> DagRunResult:
        """Execute the run to its end; return its final state."""
        try:
            await self._execute()
            # A signal that arrived while the run ended: its sender expects that the workflow reads the run once more.
            while self._resync and await self._has_resumed():
                await self._execute()
        except asyncio.CancelledError:
            await self._finish_early(RunStatus(run.dag_id, run.run_id, cancelled=True))
        # An activity that was awaited during a cancellation raises ActivityError instead of CancelledError.
        except FailureError as error:
            if is_cancelled_exception(error):
                await self._finish_early(RunStatus(run.dag_id, run.run_id, cancelled=True))
            elif _is_gone(error):
                await self._stop(list(self._in_flight))
                self._state = DELETED
            else:
                await self._finish_early(RunStatus(run.dag_id, run.run_id, error=_cause(error)[:1000]))
                raise
        workflow.upsert_search_attributes([STATE.value_set(self._state)])
        workflow.set_current_details(f"Run **{self._state}**: {self._summary()}")
        return DagRunResult(self._state)

    @workflow.signal(name=RESYNC_SIGNAL)
    def resync(self) -> None:
        """Signal that something changed outside the workflow: for example, a user cleared a task."""
        self._resync = True

    @workflow.signal(name=WAKE_SIGNAL)
    def wake(self, task_ids: list[str]) -> None:
        """Signal that the run got a slot, or that these tasks no longer wait for an earlier run."""
        self._woken = True
        self._tasks_to_check |= dict.fromkeys(task_ids)

    @workflow.query
    def task_states(self) -> list[dict[str, str | int | None]]:
        """Return every known task instance, its state and its try number."""
        return [
            dict(zip(("task_id", "map_index", "state", "try_number"), row, strict=True))
            for row in self._grid.known()
        ]

    @workflow.query
    def progress(self) -> Progress:
        """Return the run's state and the number of task instances in each state."""
        return {
            "dag_id": self._run.dag_id,
            "run_id": self._run.run_id,
            "state": self._state,
            "tasks": self._grid.counts(),
        }

    @workflow.query
    def grid(self) -> Grid:
        """Return the run, its DAG's structure and its task instances; the latter two packed."""
        run = {"dag_id": self._run.dag_id, "run_id": self._run.run_id, "state": self._state, **self._grid.run}
        return {"run": run, "structure": self._grid.structure, "tasks": self._grid.pack()}

    async def _has_resumed(self) -> bool:
        """Return whether the run is running again, since a user cleared it while it was ending."""
        self._resync = False
        await self._finish()
        return self._state == RUNNING

    async def _execute(self) -> None:
        ref = self._run.ref
        workflow.upsert_search_attributes(
            [DAG_ID.value_set(ref.dag_id), RUN_ID.value_set(ref.run_id), STATE.value_set(RUNNING)]
        )
        await self._load()
        await run_transaction("ensure_task_instances", ref, int)
        # Timers of the workflow that this one continues. The first pass, a resync, replaces those that have changed.
        for timer in self._run.timers:
            self._wait_until(timer)
        timeout = asyncio.create_task(self._dagrun_timeout())
        try:
            while self._state == RUNNING:
                if self._timed_out:
                    self._timed_out = False
                    await self._finish()
                    # A cleared run has a new start, and therefore a new end of its `dagrun_timeout`.
                    await self._load()
                    timeout = asyncio.create_task(self._dagrun_timeout())
                else:
                    await self._step()
        finally:
            # Also before a continuation as new, which closes this execution: a trigger whose task still waits then goes
            # on in the worker (`trigger_activities.py`), and the new execution joins it.
            timeout.cancel()
            for _, task in self._timers.values():
                task.cancel()
            self._timers.clear()
            for _, trigger in self._triggers.values():
                trigger.cancel()
            self._held, self._held_triggers = [], {}
        if self._in_flight:
            await self._stop(list(self._in_flight))

    async def _load(self) -> None:
        self._dag = await run_transaction("load_serialized_dag", self._run.ref, LoadedDag)
        self._grid.run, self._grid.structure = self._dag.run, self._dag.structure
        if self._dag.former:
            self._grid.remember(unpack(self._dag.former))

    async def _step(self) -> None:
        """Run one pass with the events since the previous one, and carry out its decisions."""
        await self._record_failures()
        finished, self._finished = self._finished, []
        cancelled, self._cancelled = self._cancelled, []
        due, self._due = self._due, []
        look, self._tasks_to_check, self._woken = list(self._tasks_to_check), {}, False
        resync, self._resync = self._resync, False
        # Events that arrive during the pass are for the next one: their fields were emptied above.
        result = await run_transaction(
            "schedule_pass",
            PassInput(
                self._run.dag_id,
                self._run.run_id,
                finished=finished,
                cancelled=cancelled,
                due=due,
                look=look,
                in_flight=list(self._in_flight) + [task.key for task in self._held],
                resync=resync,
                known=self._grid.known() if resync else [],
            ),
            PassResult,
        )
        self._apply(result)
        if result.run_state != RUNNING:
            await self._finish()
            return
        wait: timedelta | None = None
        if result.idle and not self._in_flight and not self._has_events():
            await self._finish()
            if self._state != RUNNING:
                return
            wait = self._idle_wait
        self._continue_as_new_if_due()
        try:
            # `wait` is set only while nothing is in progress. It covers events that send no message to the workflow.
            await workflow.wait_condition(self._has_events, timeout=wait, timeout_summary="looks again")
            self._idle_wait = _FIRST_IDLE_WAIT
        except asyncio.TimeoutError:
            self._idle_wait = min(2 * self._idle_wait, _MAX_IDLE_WAIT)
            self._resync = True

    def _has_events(self) -> bool:
        return bool(
            self._finished or self._due or self._woken or self._resync or self._failures or self._timed_out
        )

    def _apply(self, result: PassResult) -> None:
        self._grid.put(result.changed)
        for timer in result.timers:
            self._wait_until(timer)
        for key in result.stop:
            if (handle := self._in_flight.get((key[0], key[1]))) is not None:
                handle.cancel()
        # The held ones first, in their order: passes count them as in flight and don't return them again.
        ready, self._held = self._held + result.ready, []
        for task in ready:
            if self._draining() or self._is_full():
                self._held.append(task)
            else:
                self._start(task)
        self._start_and_cancel_triggers(result)

    def _start_and_cancel_triggers(self, result: PassResult) -> None:
        """Start the triggers that tasks now wait for, and cancel those that no task waits for."""
        # A pass that isn't a resync returns only triggers of tasks that it saw: a missing one may still be waited for.
        wanted = {(task_id, map_index): trigger_id for task_id, map_index, trigger_id in result.triggers}
        for key, (trigger_id, handle) in list(self._triggers.items()):
            state = self._grid.state(key)
            if wanted.get(key, trigger_id) != trigger_id or (
                key not in wanted and (result.every_trigger or state != "deferred")
            ):
                del self._triggers[key]
                handle.cancel()
        held = {} if result.every_trigger else self._held_triggers
        wanted, self._held_triggers = {**held, **wanted}, {}
        for key, trigger_id in wanted.items():
            if key in self._triggers:
                continue
            if self._is_full():
                self._held_triggers[key] = trigger_id
            else:
                self._start_trigger(key, trigger_id)

    def _is_full(self) -> bool:
        """Return whether no further activity may start: Temporal's server accepts 2,000 pending ones."""
        return len(self._in_flight) + len(self._triggers) >= _MAX_PENDING_ACTIVITIES

    def _start(self, task: TaskTry) -> None:
        handle = start_try(self._run.ref, task, self._dag.on_worker_lost)
        key = task.key
        self._in_flight[key] = handle
        self._tries[key] = task
        self._grid.start(key, task.try_number, workflow.time())
        # Called on the workflow's event loop, between steps or while one awaits.
        handle.add_done_callback(lambda _: self._ended(key, handle))

    def _ended(self, key: Key, handle: workflow.ActivityHandle[Any]) -> None:
        if self._in_flight.get(key) is handle:
            del self._in_flight[key]
        task = self._tries.pop(key)
        error = None if handle.cancelled() else handle.exception()
        if handle.cancelled() or (error is not None and is_cancelled_exception(error)):
            # Not a failure: a user has cleared or marked the task, or the run ends.
            self._cancelled.append(key)
        elif isinstance(error, ActivityError):
            self._failures.append(
                TaskFailure(task.task_id, task.map_index, task.try_number, describe_failure(error))
            )
        self._finished.append(key)

    def _start_trigger(self, key: Key, trigger_id: int) -> None:
        handle = start_trigger(self._run.ref, key, trigger_id, len(self._triggers))
        self._triggers[key] = (trigger_id, handle)
        handle.add_done_callback(lambda _: self._trigger_ended(key, handle))

    def _trigger_ended(self, key: Key, handle: workflow.ActivityHandle[Any]) -> None:
        if not handle.cancelled():
            # Retrieves the exception: asyncio would otherwise log it as never retrieved.
            handle.exception()
        if (known := self._triggers.get(key)) is not None and known[1] is handle:
            del self._triggers[key]
            if (timeout := self._timers.pop(key, None)) is not None:
                timeout[1].cancel()
            self._finished.append(key)

    async def _record_failures(self) -> None:
        failures, self._failures = self._failures, []
        if failures:
            await run_transaction(
                "sync_task_status_batch", TaskFailures(self._run.dag_id, self._run.run_id, failures), None
            )
            await run_callbacks(self._run.ref)

    def _wait_until(self, timer: Timer) -> None:
        key = (timer.task_id, timer.map_index)
        if (existing := self._timers.get(key)) is not None:
            if existing[0].at == timer.at:
                return
            existing[1].cancel()
        self._timers[key] = (timer, asyncio.create_task(self._timer(key, timer)))

    async def _timer(self, key: Key, timer: Timer) -> None:
        delay = timer.at - workflow.time()
        if delay > 0:
            await workflow.sleep(delay, summary=timer.why[:200])
        self._timers.pop(key, None)
        self._due.append(key)

    async def _dagrun_timeout(self) -> None:
        if self._dag.timeout_at is None:
            return
        await workflow.sleep(
            max(0.0, self._dag.timeout_at - workflow.time()) + 0.05, summary="dagrun_timeout"
        )
        self._timed_out = True

    async def _finish(self) -> None:
        """Let Airflow decide whether the run has ended, and in which state."""
        finished = await self._sync(RunStatus(self._run.dag_id, self._run.run_id))
        # Before the state, for which clients wait: when they see the run ended, its callbacks have run.
        if finished.callbacks:
            await run_callbacks(self._run.ref)
        self._state = finished.state

    async def _finish_early(self, status: RunStatus) -> None:
        await self._stop(list(self._in_flight))
        finished = await self._sync(status)
        self._state = finished.state if finished.state in FINAL_RUN_STATES else "failed"

    async def _sync(self, status: RunStatus) -> RunFinished:
        status.known = self._grid.known()
        finished: RunFinished = await run_transaction("sync_dagrun_status", status, RunFinished)
        self._grid.run = {**self._grid.run, **finished.run}
        if finished.rows:
            self._grid.put(unpack(finished.rows))
        return finished

    async def _stop(self, keys: list[Key]) -> None:
        handles = [self._in_flight[key] for key in keys if key in self._in_flight]
        # All at once, then wait for each: every process has ended before the run is finished.
        for handle in handles:
            handle.cancel()
        for handle in handles:
            with suppress(FailureError, asyncio.CancelledError):
                await handle

    def _draining(self) -> bool:
        """Return whether the history is so long that nothing new starts until a continuation as new."""
        return workflow.info().get_current_history_length() > self._run.drain_at

    def _continue_as_new_if_due(self) -> None:
        """Continue as new if the history is long and no task runs; no activity would survive it."""
        if self._in_flight or not (workflow.info().is_continue_as_new_suggested() or self._draining()):
            return
        workflow.continue_as_new(
            DagRunInput(
                self._run.dag_id,
                self._run.run_id,
                grid=self._grid.pack(),
                timers=[timer for timer, _ in self._timers.values()],
                drain_at=self._run.drain_at,
            )
        )

    def _summary(self) -> str:
        return ", ".join(f"{count} {state}" for state, count in sorted(self._grid.counts().items()))


def _is_gone(error: FailureError) -> bool:
    """Return whether the run is no longer in Airflow's database."""
    cause = error.cause if isinstance(error, ActivityError) else error
    return isinstance(cause, ApplicationError) and cause.type == RUN_GONE


def _cause(error: FailureError) -> str:
    return str(error.cause if isinstance(error, ActivityError) and error.cause else error)
