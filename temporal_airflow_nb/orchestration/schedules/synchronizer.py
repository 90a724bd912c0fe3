"""Keeps a Temporal Schedule for each DAG of ours that has a time schedule which Temporal can express."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from airflow._shared.timezones import timezone
from airflow.models.dag import DagModel
from airflow.models.serialized_dag import SerializedDagModel
from sqlalchemy import func, select
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

_LOOK_AGAIN = 2.0
_COMPARE_AGAIN = 60.0
_AT_ONCE = 8
_ROUNDS = 4
_LONGEST_WAIT = timedelta(days=1)
_CATCHUP = timedelta(days=365)
_NO_CATCHUP = timedelta(minutes=1)
_TASK_QUEUE = "task_queue"


class _TimeSchedule(NamedTuple):
    timetable: Timetable
    restriction: TimeRestriction


@dataclass
class _Wanted:
    """What is to be in place for a DAG: a schedule, or the reason why there is none."""

    fingerprint: str
    reason: str | None = None
    timetable: Timetable | None = None
    schedule: Schedule | None = None


class ScheduleSynchronizer:
    """
    Creates, changes, pauses and deletes schedules as DAGs change in Airflow's database.

    What it last did for a DAG is in our table, so that a look costs two queries. Several keepers may work at once:
    each step is idempotent, and what one of them did late, the next look of any puts right. It also creates the runs
    that no schedule fired for.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.prefix = schedule_id_prefix()
        self.task_queue = task_queue()
        self._read: dict[str, tuple[Any, _TimeSchedule | None]] = {}
        self._decided: dict[str, tuple[Any, _Wanted]] = {}
        self._checked: dict[str, list[ScheduleIntervalSpec]] = {}
        self._compare_at = 0.0

    async def run(self) -> None:
        """Keep them until cancelled."""
        while True:
            for step in (self.look, self.create_overdue):
                try:
                    await step()
                except Exception as error:
                    log.warning("Could not look after schedules; trying again", error=repr(error))
            await asyncio.sleep(_LOOK_AGAIN)

    async def create_overdue(self) -> None:
        """Create the runs that no schedule has fired for."""
        for dag_id in await asyncio.to_thread(list_overdue_dags):
            await asyncio.to_thread(create_due_runs, dag_id)

    async def look(self) -> None:
        """Look once, and do what there is to do."""
        wanted, known = await asyncio.to_thread(self._look_at_database)
        changed = [
            (dag_id, want, known.get(dag_id))
            for dag_id, want in wanted.items()
            if dag_id not in known or known[dag_id].fingerprint != want.fingerprint
        ]
        await _each(changed, lambda change: self._put(*change))
        await _each([row for dag_id, row in known.items() if dag_id not in wanted], self._remove)
        clock = asyncio.get_running_loop().time()
        if clock >= self._compare_at:
            await self._compare(wanted)
            self._compare_at = clock + _COMPARE_AGAIN

    async def clear(self) -> None:
        """Delete every schedule, and leave all DAGs to Airflow's scheduler; return when that is done."""
        while True:
            try:
                known = await asyncio.to_thread(_rows)
                if not known:
                    return
                await _each(known.values(), self._remove)
            except Exception as error:
                log.warning("Could not delete schedules; trying again", error=repr(error))
            await asyncio.sleep(_LOOK_AGAIN)

    def _look_at_database(self) -> tuple[dict[str, _Wanted], dict[str, ScheduleRecord]]:
        with reading() as session:
            known = records.read_records(session)
            models = _ours(session)
            wanted = {}
            for model in models:
                version = (model.created_at, model.last_updated)
                if self._read.get(model.dag_id, (None, None))[0] != version:
                    dag = scheduler()._get_current_dag(model.dag_id, session)
                    if dag is None:
                        # It can't be read now: what there is stays.
                        known.pop(model.dag_id, None)
                        continue
                    self._read[model.dag_id] = (version, _time_schedule(dag))
                if (time_schedule := self._read[model.dag_id][1]) is not None:
                    wanted[model.dag_id] = self._wanted_of(model, time_schedule)
            there = {model.dag_id for model in models}
            self._read = {dag_id: read for dag_id, read in self._read.items() if dag_id in there}
            self._decided = {dag_id: decided for dag_id, decided in self._decided.items() if dag_id in there}
            return wanted, known

    def _wanted_of(self, model: Any, of_dag: _TimeSchedule) -> _Wanted:
        given = (tuple(model), _month())
        if self._decided.get(model.dag_id, (None, None))[0] != given:
            self._decided[model.dag_id] = (given, self._wanted(model, of_dag))
        return self._decided[model.dag_id][1]

    def _wanted(self, model: Any, of_dag: _TimeSchedule) -> _Wanted:
        timetable, restriction = of_dag.timetable, of_dag.restriction
        try:
            spec = build_spec(timetable, restriction, model.next_dagrun_create_after)
        except NotExpressibleError as error:
            return _Wanted(_fingerprint(str(error), self.prefix), reason=str(error))
        schedule = Schedule(
            action=self._action(model.dag_id),
            spec=spec,
            policy=SchedulePolicy(
                overlap=(
                    ScheduleOverlapPolicy.BUFFER_ONE
                    if model.max_active_runs == 1
                    else ScheduleOverlapPolicy.ALLOW_ALL
                ),
                catchup_window=_CATCHUP if restriction.catchup else _NO_CATCHUP,
            ),
            state=ScheduleState(note=_note(timetable, spec), paused=model.is_paused),
        )
        fingerprint = _fingerprint(
            spec, schedule.policy, schedule.state, self.prefix, self.task_queue, _month()
        )
        return _Wanted(fingerprint, timetable=timetable, schedule=schedule)

    def _action(self, dag_id: str) -> ScheduleActionStartWorkflow:
        return ScheduleActionStartWorkflow(
            DUE_WORKFLOW,
            dag_id,
            id=self.prefix + dag_id,
            task_queue=self.task_queue,
            execution_timeout=_LONGEST_WAIT,
            static_summary=f"runs of {dag_id} that are due"[:200],
            typed_search_attributes=TypedSearchAttributes([SearchAttributePair(DAG_ID, dag_id)]),
        )

    async def _put(self, dag_id: str, want: _Wanted, known: ScheduleRecord | None) -> None:
        """Have Temporal and our table say what is wanted. Airflow's scheduler has the DAG until the table does."""
        reason = want.reason
        if want.schedule is not None and want.timetable is not None:
            try:
                await self._put_schedule(dag_id, want.schedule, want.timetable)
            except NotExpressibleError as error:
                reason = str(error)
        row = ScheduleRecord(dag_id, self.prefix + dag_id, want.fingerprint, reason)
        await asyncio.to_thread(_record, row)
        if reason is not None:
            log.info("A DAG's time schedule stays with Airflow's scheduler", dag_id=dag_id, reason=reason)
            await self._delete(row.schedule_id)
        if known is not None and known.schedule_id != row.schedule_id:
            await self._delete(known.schedule_id)

    async def _put_schedule(self, dag_id: str, schedule: Schedule, timetable: Timetable) -> None:
        schedule_id, spec = self.prefix + dag_id, schedule.spec
        same = _fingerprint(
            spec.calendars, spec.time_zone_name, _still_matters(spec.start_at), spec.end_at, _month()
        )
        added = self._checked.get(same)
        try:
            await self._create_or_update(schedule_id, dag_id, _with(schedule, added or []))
            if added is None:
                self._checked[same] = await self._complete(dag_id, schedule, timetable)
        except RPCError as error:
            if error.status != RPCStatusCode.INVALID_ARGUMENT:
                raise
            raise NotExpressibleError(f"Temporal refuses the schedule: {error.message}") from None

    async def _complete(
        self, dag_id: str, schedule: Schedule, timetable: Timetable
    ) -> list[ScheduleIntervalSpec]:
        """Add to a schedule the times that it leaves out; return them."""
        schedule_id = self.prefix + dag_id
        added: list[ScheduleIntervalSpec] = []
        # Which times around a change of the clock the server leaves out depends on the others.
        for _ in range(_ROUNDS):
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
                    f"the Temporal Schedule {schedule_id!r} belongs to somebody else (task queue {owner!r});"
                    " set TEMPORAL_SCHEDULE_ID_PREFIX to another prefix"
                ) from None
            await handle.update(lambda _: ScheduleUpdate(schedule))

    async def _remove(self, row: ScheduleRecord) -> None:
        await self._delete(row.schedule_id)
        await asyncio.to_thread(_forget, row.dag_id)

    async def _delete(self, schedule_id: str) -> None:
        """Delete a schedule of ours, if it is there."""
        handle = self.client.get_schedule_handle(schedule_id)
        try:
            if await (await handle.describe()).memo_value(_TASK_QUEUE, "") == self.task_queue:
                await handle.delete()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise

    async def _compare(self, wanted: dict[str, _Wanted]) -> None:
        """Put right what somebody else did to the schedules, or what a crash left."""
        there = {}
        async for listed in await self.client.list_schedules():
            if (
                listed.id.startswith(self.prefix)
                and await listed.memo_value(_TASK_QUEUE, "") == self.task_queue
            ):
                there[listed.id.removeprefix(self.prefix)] = listed
        known = await asyncio.to_thread(_rows)
        for dag_id, want in wanted.items():
            if want.schedule is None or dag_id not in known or known[dag_id].reason is not None:
                continue
            now = there[dag_id].schedule if dag_id in there else None
            if now is None or now.state.paused != want.schedule.state.paused:
                await self._put(dag_id, want, known[dag_id])
        for dag_id in there.keys() - wanted.keys() - known.keys():
            await self._delete(self.prefix + dag_id)


def _ours(session: Session) -> list[Any]:
    """Return what there is to know of each DAG whose runs Temporal executes."""
    chosen = rollout.active_rollout()
    if chosen is None:
        return []
    models = session.execute(_dags()).all()
    managed = chosen.managed({model.dag_id for model in models}, session)
    return [model for model in models if model.dag_id in managed]


def _time_schedule(dag: SerializedDAG) -> _TimeSchedule | None:
    if not is_time_based(dag.timetable):
        return None
    return _TimeSchedule(dag.timetable, dag._time_restriction)


def _dags() -> Any:
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
    return timezone.utcnow().strftime("%Y-%m")


def _fingerprint(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _still_matters(start: datetime | None) -> datetime | None:
    return start if start is not None and start > timezone.utcnow() else None


def _with(schedule: Schedule, added: list[ScheduleIntervalSpec]) -> Schedule:
    spec = schedule.spec
    return replace(schedule, spec=replace(spec, intervals=[*spec.intervals, *added]))


def _note(timetable: Timetable, spec: ScheduleSpec) -> str:
    zone = f" ({spec.time_zone_name})" if spec.time_zone_name else ""
    return f"{timetable.summary}{zone}, kept from Airflow"


async def _each(items: Iterable[Any], call: Callable[[Any], Awaitable[None]]) -> None:
    """Call for each, some at a time; one that fails is for the next look, and doesn't keep the others waiting."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Any) -> None:
        async with turn:
            await call(item)

    for result in await asyncio.gather(*(one(item) for item in items), return_exceptions=True):
        if isinstance(result, Exception):
            log.warning("Could not keep a schedule; trying again", error=repr(result))


def _rows() -> dict[str, ScheduleRecord]:
    with reading() as session:
        return records.read_records(session)


def _record(row: ScheduleRecord) -> None:
    with transaction() as session:
        records.save_record(row, session)


def _forget(dag_id: str) -> None:
    with transaction() as session:
        records.delete_records([dag_id], session)
