"""Maintain a Temporal Schedule for each managed DAG whose timetable Temporal can express.

It runs on the event loop of each worker that executes workflows, with queries in threads. Workers don't exclude each
other: every step is idempotent, and a later cycle of any worker corrects what a late step of another one did.

The table of schedules decides who creates the runs of a DAG: a Schedule that fires for a DAG without a native record
creates nothing, and Airflow's scheduler skips a DAG with one. A new Schedule is in place before the table is updated.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import structlog
from airflow._shared.timezones import timezone
from airflow.models.dag import DagModel
from airflow.models.serialized_dag import SerializedDagModel
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
)
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from temporal_airflow_nb.config.environment import schedule_id_prefix, task_queue
from temporal_airflow_nb.orchestration.outbox import rollout
from temporal_airflow_nb.orchestration.schedules import records
from temporal_airflow_nb.orchestration.schedules.due_runs import create_due_runs, list_overdue_dags
from temporal_airflow_nb.orchestration.schedules.records import ScheduleRecord
from temporal_airflow_nb.orchestration.schedules.timetables import (
    NotExpressibleError,
    build_spec,
    is_time_based,
)
from temporal_airflow_nb.orchestration.schedules.verification import find_missing_times
from temporal_airflow_nb.orchestration.scheduling.airflow_scheduler import scheduler
from temporal_airflow_nb.orchestration.workflow.deep_workflow import DAG_ID
from temporal_airflow_nb.orchestration.workflow.models import DUE_WORKFLOW
from temporal_airflow_nb.tasks.database import reading, transaction

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.timetables.base import TimeRestriction, Timetable
    from sqlalchemy.orm import Session

log = structlog.get_logger(__name__)

T = TypeVar("T")

_CYCLE_SECONDS = 2.0
_COMPARE_SECONDS = 60.0
_MAX_CONCURRENT_REQUESTS = 8
_MAX_CORRECTIONS = 4
_EXECUTION_TIMEOUT = timedelta(days=1)
_CATCHUP_WINDOW = timedelta(days=365)
_NO_CATCHUP_WINDOW = timedelta(minutes=1)
# Errors while the database or Temporal can't be reached; the loops log any other error with its traceback.
_OUTAGE = (SQLAlchemyError, RPCError)
# The key of the memo that marks a Schedule as one of this installation: others in the namespace are left unchanged.
_TASK_QUEUE = "task_queue"


class _TimeSchedule(NamedTuple):
    timetable: Timetable
    restriction: TimeRestriction


@dataclass
class _Target:
    """The state to establish for a DAG: its schedule, or why it has none."""

    fingerprint: str
    reason: str | None = None
    timetable: Timetable | None = None
    schedule: Schedule | None = None


class ScheduleSynchronizer:
    """
    The loop that creates, changes, pauses and deletes Temporal Schedules as DAGs change in the database.

    The table of schedules has the fingerprint of what was last established for each DAG, so that a cycle without
    changes costs two queries. It also creates overdue runs, which no Schedule has created.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.prefix = schedule_id_prefix()
        self.task_queue = task_queue()
        # Caches by dag_id, each value with the version that it was computed from. Only `_read_targets` uses them, in
        # one thread at a time, since cycles don't overlap.
        self._time_schedules: dict[str, tuple[Any, _TimeSchedule | None]] = {}
        self._targets: dict[str, tuple[Any, _Target]] = {}
        # The additional times that verified specs need, by fingerprint of the spec.
        self._verified: dict[str, list[ScheduleIntervalSpec]] = {}
        self._compare_at = 0.0

    async def run(self) -> None:
        """Synchronize schedules and create overdue runs until cancelled."""
        while True:
            for step in (self.sync_once, self.create_overdue):
                try:
                    await step()
                except Exception as error:
                    # Nothing restarts this loop. Each step has a handler of its own: while Temporal can't be reached,
                    # overdue runs are still created.
                    log.warning(
                        "Could not synchronize schedules; trying again",
                        error=repr(error),
                        exc_info=not isinstance(error, _OUTAGE),
                    )
            await asyncio.sleep(_CYCLE_SECONDS)

    async def create_overdue(self) -> None:
        """Create the due runs that no Schedule has created."""
        for dag_id in await asyncio.to_thread(list_overdue_dags):
            await asyncio.to_thread(create_due_runs, dag_id)

    async def sync_once(self) -> None:
        """Compare the DAGs with the table of schedules once, and establish what differs."""
        targets, known = await asyncio.to_thread(self._read_targets)
        changed = [
            (dag_id, target, known.get(dag_id))
            for dag_id, target in targets.items()
            if dag_id not in known or known[dag_id].fingerprint != target.fingerprint
        ]
        await _call_for_each(changed, lambda change: self._establish(*change))
        await _call_for_each(
            [record for dag_id, record in known.items() if dag_id not in targets], self._remove
        )
        clock = asyncio.get_running_loop().time()
        if clock >= self._compare_at:
            await self._compare_with_temporal(targets)
            self._compare_at = clock + _COMPARE_SECONDS

    async def delete_all(self) -> None:
        """Delete every Schedule, so that Airflow's scheduler creates all runs; return when that is done."""
        while True:
            try:
                known = await asyncio.to_thread(_read_records)
                if not known:
                    return
                await _call_for_each(known.values(), self._remove)
            except Exception as error:
                # Nothing calls this again while the worker runs.
                log.warning(
                    "Could not delete schedules; trying again",
                    error=repr(error),
                    exc_info=not isinstance(error, _OUTAGE),
                )
            await asyncio.sleep(_CYCLE_SECONDS)

    def _read_targets(self) -> tuple[dict[str, _Target], dict[str, ScheduleRecord]]:
        with reading() as session:
            known = records.read_records(session)
            models = _read_managed_dags(session)
            targets = {}
            for model in models:
                version = (model.created_at, model.last_updated)
                if self._time_schedules.get(model.dag_id, (None, None))[0] != version:
                    dag = scheduler()._get_current_dag(model.dag_id, session)
                    if dag is None:
                        # The serialized DAG can't be read at the moment: its schedule stays as it is.
                        known.pop(model.dag_id, None)
                        continue
                    self._time_schedules[model.dag_id] = (version, _get_time_schedule(dag))
                if (time_schedule := self._time_schedules[model.dag_id][1]) is not None:
                    targets[model.dag_id] = self._get_target(model, time_schedule)
            existing = {model.dag_id for model in models}
            self._time_schedules = {
                dag_id: cached for dag_id, cached in self._time_schedules.items() if dag_id in existing
            }
            self._targets = {dag_id: cached for dag_id, cached in self._targets.items() if dag_id in existing}
            return targets, known

    def _get_target(self, model: Any, time_schedule: _TimeSchedule) -> _Target:
        # The month: fingerprints change with it, so that each schedule is verified again every month.
        version = (tuple(model), _month())
        if self._targets.get(model.dag_id, (None, None))[0] != version:
            self._targets[model.dag_id] = (version, self._build_target(model, time_schedule))
        return self._targets[model.dag_id][1]

    def _build_target(self, model: Any, time_schedule: _TimeSchedule) -> _Target:
        timetable, restriction = time_schedule.timetable, time_schedule.restriction
        try:
            spec = build_spec(timetable, restriction, model.next_dagrun_create_after)
        except NotExpressibleError as error:
            return _Target(_fingerprint(str(error), self.prefix), reason=str(error))
        schedule = Schedule(
            action=self._action(model.dag_id),
            spec=spec,
            policy=SchedulePolicy(
                overlap=(
                    ScheduleOverlapPolicy.BUFFER_ONE
                    if model.max_active_runs == 1
                    else ScheduleOverlapPolicy.ALLOW_ALL
                ),
                catchup_window=_CATCHUP_WINDOW if restriction.catchup else _NO_CATCHUP_WINDOW,
            ),
            state=ScheduleState(note=_note(timetable, spec), paused=model.is_paused),
        )
        fingerprint = _fingerprint(
            spec, schedule.policy, schedule.state, self.prefix, self.task_queue, _month()
        )
        return _Target(fingerprint, timetable=timetable, schedule=schedule)

    def _action(self, dag_id: str) -> ScheduleActionStartWorkflow:
        return ScheduleActionStartWorkflow(
            DUE_WORKFLOW,
            dag_id,
            id=self.prefix + dag_id,
            task_queue=self.task_queue,
            execution_timeout=_EXECUTION_TIMEOUT,
            static_summary=f"runs of {dag_id} that are due"[:200],
            typed_search_attributes=TypedSearchAttributes([SearchAttributePair(DAG_ID, dag_id)]),
        )

    async def _establish(self, dag_id: str, target: _Target, known: ScheduleRecord | None) -> None:
        """Establish the target in Temporal first, then in the table."""
        # In this order: from the record on, Airflow's scheduler skips the DAG. A worker that dies in between leaves a
        # Schedule that creates nothing, and the next cycle goes on with it.
        reason = target.reason
        if target.schedule is not None and target.timetable is not None:
            try:
                await self._put_schedule(dag_id, target.schedule, target.timetable)
            except NotExpressibleError as error:
                reason = str(error)
        record = ScheduleRecord(dag_id, self.prefix + dag_id, target.fingerprint, reason)
        await asyncio.to_thread(_save_record, record)
        # A Schedule is deleted after the record: while it exists beside the record, it creates nothing.
        if reason is not None:
            log.info("Airflow's scheduler creates the runs of a DAG", dag_id=dag_id, reason=reason)
            await self._delete(record.schedule_id)
        if known is not None and known.schedule_id != record.schedule_id:
            await self._delete(known.schedule_id)

    async def _put_schedule(self, dag_id: str, schedule: Schedule, timetable: Timetable) -> None:
        schedule_id, spec = self.prefix + dag_id, schedule.spec
        # DAGs with the same times are verified once.
        times = _fingerprint(
            spec.calendars, spec.time_zone_name, _none_if_past(spec.start_at), spec.end_at, _month()
        )
        added = self._verified.get(times)
        try:
            await self._create_or_update(schedule_id, dag_id, _with(schedule, added or []))
            if added is None:
                self._verified[times] = await self._add_missing_times(dag_id, schedule, timetable)
        except RPCError as error:
            if error.status != RPCStatusCode.INVALID_ARGUMENT:
                raise
            raise NotExpressibleError(f"Temporal refuses the schedule: {error.message}") from None

    async def _add_missing_times(
        self, dag_id: str, schedule: Schedule, timetable: Timetable
    ) -> list[ScheduleIntervalSpec]:
        """Add the times that a Schedule leaves out; return them."""
        schedule_id = self.prefix + dag_id
        added: list[ScheduleIntervalSpec] = []
        # The times that the server leaves out around a change of the clock depend on the other times of the schedule:
        # added times can make it leave out further ones.
        for _ in range(_MAX_CORRECTIONS):
            more = await find_missing_times(self.client, schedule_id, schedule.spec, timetable)
            if not more:
                return added
            added += more
            await self._create_or_update(schedule_id, dag_id, _with(schedule, added))
        raise NotExpressibleError(
            f"Temporal leaves out times of {timetable.summary!r}, however many are added"
        )

    async def _create_or_update(self, schedule_id: str, dag_id: str, schedule: Schedule) -> None:
        try:
            await self.client.create_schedule(
                schedule_id,
                schedule,
                memo={"dag_id": dag_id, _TASK_QUEUE: self.task_queue},
                search_attributes=TypedSearchAttributes([SearchAttributePair(DAG_ID, dag_id)]),
            )
        except ScheduleAlreadyRunningError:
            handle = self.client.get_schedule_handle(schedule_id)
            owner = await (await handle.describe()).memo_value(_TASK_QUEUE, "")
            if owner != self.task_queue:
                raise NotExpressibleError(
                    f"the Temporal Schedule {schedule_id!r} belongs to another installation (task queue {owner!r});"
                    " set TEMPORAL_SCHEDULE_ID_PREFIX to another prefix"
                ) from None
            # Whatever a user changed in the Schedule is overwritten: Airflow is where a DAG is changed and paused.
            await handle.update(lambda _: ScheduleUpdate(schedule))

    async def _remove(self, record: ScheduleRecord) -> None:
        await self._delete(record.schedule_id)
        await asyncio.to_thread(_delete_record, record.dag_id)

    async def _delete(self, schedule_id: str) -> None:
        """Delete a Schedule if it exists and belongs to this installation."""
        handle = self.client.get_schedule_handle(schedule_id)
        try:
            if await (await handle.describe()).memo_value(_TASK_QUEUE, "") == self.task_queue:
                await handle.delete()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise

    async def _compare_with_temporal(self, targets: dict[str, _Target]) -> None:
        """Correct Schedules that a user changed or deleted, and delete those that a crash left."""
        existing = {}
        async for listed in await self.client.list_schedules():
            if (
                listed.id.startswith(self.prefix)
                and await listed.memo_value(_TASK_QUEUE, "") == self.task_queue
            ):
                existing[listed.id.removeprefix(self.prefix)] = listed
        # Read again: this cycle or another worker may have changed the table.
        known = await asyncio.to_thread(_read_records)
        for dag_id, target in targets.items():
            if target.schedule is None or dag_id not in known or known[dag_id].reason is not None:
                continue
            current = existing[dag_id].schedule if dag_id in existing else None
            if current is None or current.state.paused != target.schedule.state.paused:
                await self._establish(dag_id, target, known[dag_id])
        for dag_id in existing.keys() - targets.keys() - known.keys():
            await self._delete(self.prefix + dag_id)


def _read_managed_dags(session: Session) -> list[Any]:
    """Return the columns of :func:`_select_dags` for each DAG whose runs Temporal executes."""
    active = rollout.active_rollout()
    if active is None:
        return []
    models = session.execute(_select_dags()).all()
    managed = active.managed({model.dag_id for model in models}, session)
    return [model for model in models if model.dag_id in managed]


def _get_time_schedule(dag: SerializedDAG) -> _TimeSchedule | None:
    if not is_time_based(dag.timetable):
        return None
    return _TimeSchedule(dag.timetable, dag._time_restriction)


def _select_dags() -> Any:
    stored = (
        select(
            SerializedDagModel.dag_id,
            func.max(SerializedDagModel.created_at).label("created_at"),
            func.max(SerializedDagModel.last_updated).label("last_updated"),
        )
        .group_by(SerializedDagModel.dag_id)
        .subquery()
    )
    return (
        select(
            DagModel.dag_id,
            DagModel.is_paused,
            DagModel.max_active_runs,
            DagModel.next_dagrun_create_after,
            stored.c.created_at,
            stored.c.last_updated,
        )
        .join(stored, stored.c.dag_id == DagModel.dag_id)
        .where(~DagModel.is_stale)
        .order_by(DagModel.dag_id)
    )


def _month() -> str:
    month: str = timezone.utcnow().strftime("%Y-%m")
    return month


def _fingerprint(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _none_if_past(start: datetime | None) -> datetime | None:
    return start if start is not None and start > timezone.utcnow() else None


def _with(schedule: Schedule, added: list[ScheduleIntervalSpec]) -> Schedule:
    spec = schedule.spec
    return replace(schedule, spec=replace(spec, intervals=[*spec.intervals, *added]))


def _note(timetable: Timetable, spec: ScheduleSpec) -> str:
    zone = f" ({spec.time_zone_name})" if spec.time_zone_name else ""
    return f"{timetable.summary}{zone}, kept from Airflow"


async def _call_for_each(items: Iterable[T], call: Callable[[T], Awaitable[None]]) -> None:
    """Call a function with each item, some at a time; log failures, for the next cycle to repeat."""
    limit = asyncio.Semaphore(_MAX_CONCURRENT_REQUESTS)

    async def call_limited(item: T) -> None:
        async with limit:
            await call(item)

    for result in await asyncio.gather(*(call_limited(item) for item in items), return_exceptions=True):
        if isinstance(result, Exception):
            log.warning(
                "Could not synchronize a schedule; trying again",
                error=repr(result),
                exc_info=None if isinstance(result, _OUTAGE) else result,
            )


def _read_records() -> dict[str, ScheduleRecord]:
    with reading() as session:
        return records.read_records(session)


def _save_record(record: ScheduleRecord) -> None:
    with transaction() as session:
        records.save_record(record, session)


def _delete_record(dag_id: str) -> None:
    with transaction() as session:
        records.delete_records([dag_id], session)
