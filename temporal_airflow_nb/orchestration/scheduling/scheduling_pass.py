"""One scheduling pass over one run: Airflow's decisions, on the task instances that a change concerns.

Airflow's own scheduler looks at every unfinished task instance of a run each time. A pass here hands
``DagRun._get_ready_tis`` only the candidates, found along the edges of :class:`TaskGraph`, so that what a completion
costs doesn't grow with the DAG.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow._shared.timezones import timezone
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance as TI
from airflow.models.taskreschedule import TaskReschedule
from airflow.models.xcom import XComModel
from airflow.ti_deps.dependencies_states import EXECUTION_STATES, SCHEDULEABLE_STATES
from airflow.utils.state import State, TaskInstanceState
from sqlalchemy import and_, exists, false, or_, select, true, update

from temporal_airflow_nb.orchestration.outbox import outbox, rollout
from temporal_airflow_nb.orchestration.scheduling import past_dependencies, pool_slots
from temporal_airflow_nb.orchestration.scheduling.airflow_queues import default_queue
from temporal_airflow_nb.orchestration.scheduling.airflow_scheduler import scheduler
from temporal_airflow_nb.orchestration.scheduling.grid_rows import COLUMNS, drop_times_if_large, encode_row
from temporal_airflow_nb.orchestration.scheduling.task_graph import TaskGraph, get_graph
from temporal_airflow_nb.orchestration.workflow.models import Key, PassInput, PassResult, TaskTry, Timer
from temporal_airflow_nb.tasks.trigger_queue import move_to_worker_queue

if TYPE_CHECKING:
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

XCOM_SKIPMIXIN_KEY = "skipmixin_key"
_PROBE = 20
_IN_PROGRESS = (
    TaskInstanceState.SCHEDULED,
    TaskInstanceState.QUEUED,
    TaskInstanceState.RUNNING,
    TaskInstanceState.RESTARTING,
    TaskInstanceState.UP_FOR_RETRY,
    TaskInstanceState.UP_FOR_RESCHEDULE,
    TaskInstanceState.DEFERRED,
    TaskInstanceState.AWAITING_INPUT,
)
_RUNNABLE = tuple(state for state in SCHEDULEABLE_STATES if state is not None)
_PARKED = (TaskInstanceState.DEFERRED, TaskInstanceState.AWAITING_INPUT)


def _in_states(states: Iterable[Any]) -> Any:
    return or_(TI.state.is_(None), TI.state.in_([state for state in states if state is not None]))


@dataclass
class _Change:
    """Instances of one task that have ended."""

    task_id: str
    indexes: set[int]
    only_success: bool


class SchedulingPass:
    """
    One pass, within one transaction.

    Parameters
    ----------
    dag_run
        The run, locked by the caller.
    dag
        The run's DAG in the version it uses now.
    session
        Where it all happens. Nothing is committed.
    """

    def __init__(self, dag_run: DagRun, dag: SerializedDAG, session: Session) -> None:
        self.dag_run = dag_run
        self.dag = dag
        self.session = session
        self.graph: TaskGraph = get_graph(dag)
        self._of_run = and_(TI.dag_id == dag_run.dag_id, TI.run_id == dag_run.run_id)
        self._changed: dict[Key, Any] = {}
        self._look_at_all = False
        self._some_wait = False
        rests = select(DagModel.dag_id).where(DagModel.dag_id == dag_run.dag_id, rollout.dag_is_inactive())
        self._rests = session.scalar(rests) is not None
        dag_run.dag = dag

    def run(self, request: PassInput) -> PassResult:
        """Decide what follows from what has happened; return what changed and what to start."""
        result = PassResult()
        self._look_at_all = request.resync
        if request.resync:
            self._take_up_orphans(request)
            self._time_out([])
            self._follow(self._evaluate(self._decidable()))
            self._note_differences(request)
        else:
            changes, due = self._take_events(request)
            self._follow(changes)
            self._follow(self._evaluate(due))
            if request.look:
                self._follow(
                    self._evaluate(self._load(and_(TI.task_id.in_(request.look), _in_states(_RUNNABLE))))
                )
        pool_slots.queue_tasks(self.dag_run, self.session, has_freed_slots=bool(request.finished))
        self._tell_later_runs()
        self._collect(request, result)
        return result

    def _take_up_orphans(self, request: PassInput) -> None:
        """Have tasks that run for no activity run again: their workflow was lost with Temporal's data."""
        known = {*request.in_flight, *request.finished}
        running = [(row.task_id, row.map_index) for row in self._rows(TI.state == TaskInstanceState.RUNNING)]
        if orphans := [key for key in running if key not in known]:
            self.session.execute(
                update(TI)
                .where(self._of_run, self._any_of(orphans))
                .values(state=TaskInstanceState.QUEUED)
                .execution_options(synchronize_session=False)
            )

    def _decidable(self) -> list[TI]:
        """Return what may be decided at all: task instances that wait for nobody, or for a task that has ended."""
        ended = set(
            self.session.scalars(
                select(TI.task_id).where(self._of_run, TI.state.in_(State.finished)).distinct()
            )
        )
        wanted = [
            task_id
            for task_id, seen in self.graph.sees.items()
            if not seen or not seen.isdisjoint(ended) or self.dag.task_dict[task_id].trigger_rule == "always"
        ]
        return self._load(and_(TI.task_id.in_(wanted), _in_states(_RUNNABLE)))

    def _take_events(self, request: PassInput) -> tuple[list[_Change], list[TI]]:
        """Sort the task instances that the workflow names into finished ones and ones that may be due."""
        if request.due:
            self._time_out(request.due)
        rows = self._rows(self._any_of([*request.finished, *request.due]))
        for row in rows:
            self._note(row)
        finished = [row for row in rows if row.state in State.finished]
        due = [(row.task_id, row.map_index) for row in rows if row.state in SCHEDULEABLE_STATES]
        self._some_wait = bool(due) or any(row.state in _PARKED for row in rows)
        if self.dag.fail_fast and any(row.state == TaskInstanceState.FAILED for row in rows):
            # Airflow has just ended every other task of the run.
            self._look_at_all = True
            finished = self._rows(TI.state.in_(State.finished))
        finished += self._skipped_by(finished)
        return _changes(finished), self._load(self._any_of(due)) if due else []

    def _time_out(self, due: Iterable[Key]) -> None:
        """Have Airflow resume what has waited too long for its trigger or for an answer."""
        late = [TI.state.in_(_PARKED), TI.trigger_timeout < timezone.utcnow()]
        if due:
            late.append(self._any_of(due))
        states = set(self.session.scalars(select(TI.state).where(self._of_run, *late).distinct()))
        if TaskInstanceState.DEFERRED in states:
            scheduler().check_trigger_timeouts(session=self.session)
        if TaskInstanceState.AWAITING_INPUT in states:
            scheduler().check_awaiting_input_timeouts(session=self.session)
        self.session.flush()

    def _skipped_by(self, rows: list[Any]) -> list[Any]:
        """Return the task instances that tasks of ``rows`` have skipped: branches, short circuits and the like."""
        ended = {row.task_id for row in rows if row.state == TaskInstanceState.SUCCESS}
        if not ended:
            return []
        skipping = self.session.scalars(
            select(XComModel.task_id).where(
                XComModel.dag_run_id == self.dag_run.id,
                XComModel.key == XCOM_SKIPMIXIN_KEY,
                XComModel.task_id.in_(sorted(ended)),
            )
        ).all()
        below = set().union(
            *(self.dag.task_dict[task_id].get_flat_relative_ids(upstream=False) for task_id in skipping)
        )
        skipped = (
            self._rows(and_(TI.task_id.in_(sorted(below)), TI.state == TaskInstanceState.SKIPPED))
            if below
            else []
        )
        for row in skipped:
            self._note(row)
        return skipped

    def _follow(self, changes: list[_Change]) -> None:
        """Evaluate what the changes concern, and what the changes made by that concern, until nothing changes."""
        while changes:
            changes = self._evaluate(self._candidates(changes))

    def _candidates(self, changes: list[_Change]) -> list[TI]:
        wanted: dict[str, set[int] | None] = {}
        for change in changes:
            for task_id in self.graph.seen_by.get(change.task_id, ()):
                if change.only_success and self._still_waits(task_id):
                    continue
                indexes = change.indexes if self.graph.same_instance(change.task_id, task_id) else None
                if indexes is None or task_id not in wanted:
                    wanted[task_id] = None if indexes is None else {-1, *indexes}
                elif (known := wanted[task_id]) is not None:
                    wanted[task_id] = known | indexes
        whole = [task_id for task_id, indexes in wanted.items() if indexes is None]
        clauses = [TI.task_id.in_(whole)] if whole else []
        clauses += [
            and_(TI.task_id == task_id, TI.map_index.in_(sorted(indexes)))
            for task_id, indexes in wanted.items()
            if indexes is not None
        ]
        return self._load(and_(or_(*clauses), _in_states(_RUNNABLE))) if clauses else []

    def _still_waits(self, task_id: str) -> bool:
        """Return whether some upstream that ``task_id`` needs hasn't ended; looks at the likely ones first."""
        upstream = self.graph.waits_for(task_id)
        for some in (upstream[:_PROBE], upstream[_PROBE:]):
            if some and self.session.scalar(
                select(exists().where(self._of_run, TI.task_id.in_(some), _in_states(State.unfinished)))
            ):
                return True
        return False

    def _load(self, where: Any) -> list[TI]:
        tis = self.session.scalars(select(TI).where(self._of_run, where)).all()
        known = self.dag.task_dict
        found = []
        for ti in tis:
            if ti.task_id in known:
                ti.task = known[ti.task_id]
                ti.dag_run = self.dag_run
                found.append(ti)
            else:
                ti.state = TaskInstanceState.REMOVED
        return sorted(found, key=lambda ti: (self.graph.order[ti.task_id], ti.map_index))

    def _evaluate(self, candidates: list[TI]) -> list[_Change]:
        """Let Airflow decide about the candidates; return what ended without running."""
        if not candidates:
            return []
        task_ids = {ti.task_id for ti in candidates}
        before = {(ti.task_id, ti.map_index): ti.state for ti in candidates}
        seen = set().union(*(self.graph.sees[task_id] for task_id in task_ids))
        finished = (
            self._load(and_(TI.task_id.in_(sorted(seen)), TI.state.in_(State.finished))) if seen else []
        )
        ready, _, _ = self.dag_run._get_ready_tis(candidates, finished, session=self.session)
        self.session.flush()
        if ready and self._rests:
            self._keep_for_later()
        elif ready:
            self.dag_run.schedule_tis(ready, session=self.session)
            self.session.flush()
        self.session.expire_all()
        now_finished = []
        for row in self._rows(TI.task_id.in_(sorted(task_ids))):
            if row.state != before.get((row.task_id, row.map_index), "not seen before"):
                self._note(row)
                if row.state in State.finished:
                    now_finished.append(row)
                self._some_wait |= row.state in _PARKED
        return _changes(now_finished)

    def _keep_for_later(self) -> None:
        """Have the run look again when its DAG doesn't rest any more."""
        run = (self.dag_run.dag_id, self.dag_run.run_id)
        if not outbox.is_pending(*run, outbox.UNPAUSED, self.session):
            outbox.notify(*run, outbox.UNPAUSED, self.session)

    def _is_held(self) -> bool:
        """Return whether something could start if the DAG didn't rest."""
        return self._rests and outbox.is_pending(
            self.dag_run.dag_id, self.dag_run.run_id, outbox.UNPAUSED, self.session
        )

    def _any_of(self, keys: Iterable[Key]) -> Any:
        by_task: dict[str, list[int]] = defaultdict(list)
        for task_id, map_index in keys:
            by_task[task_id].append(map_index)
        clauses = [
            and_(TI.task_id == task_id, TI.map_index.in_(indexes)) for task_id, indexes in by_task.items()
        ]
        return or_(*clauses) if clauses else false()

    def _rows(self, where: Any, *order: Any) -> list[Any]:
        return list(self.session.execute(select(*COLUMNS).where(self._of_run, where).order_by(*order)))

    def _note(self, row: Any) -> None:
        self._changed[row.task_id, row.map_index] = encode_row(row)

    def _note_differences(self, request: PassInput) -> None:
        """Note what isn't as the workflow knows it, whoever changed it."""
        known = {(task_id, map_index): (state, tries) for task_id, map_index, state, tries in request.known}
        in_flight = set(request.in_flight)
        for row in self._rows(true()):
            key = (row.task_id, row.map_index)
            if key in in_flight and row.state in EXECUTION_STATES:
                continue
            state = None if row.state is None else str(row.state)
            if known.get(key, (None, 0)) != (state, row.try_number):
                self._note(row)

    def _collect(self, request: PassInput, result: PassResult) -> None:
        """Read what there is to start, to wait for and to stop, from the state that the pass leaves behind."""
        in_flight = set(request.in_flight)
        # What one worker can't run at once waits in the order in which it is started.
        for row in self._rows(TI.state == TaskInstanceState.QUEUED, -TI.priority_weight, TI.map_index):
            if (row.task_id, row.map_index) not in in_flight:
                task = self.dag.task_dict.get(row.task_id)
                plain = bool(getattr(task, "run_as_user", None))
                queue = None if row.queue in (None, default_queue()) else row.queue
                result.ready.append(
                    TaskTry(row.task_id, row.map_index, row.try_number, row.operator or "", queue, plain)
                )
        if request.resync or self._some_wait:
            result.timers = self._timers(request)
        result.triggers, result.every_trigger = self._triggers(), self._look_at_all
        if self._look_at_all and in_flight:
            wanted = {
                (row.task_id, row.map_index)
                for row in self._rows(self._any_of(in_flight))
                if row.state in EXECUTION_STATES
            }
            result.stop = sorted(in_flight - wanted)
        result.changed = drop_times_if_large(
            sorted(self._changed.values(), key=lambda ti: (self.graph.order.get(ti[0], 0), ti[1]))
        )
        busy = result.ready or in_flight - set(request.finished)
        result.idle = (
            not busy
            and not self.session.scalar(select(exists().where(self._of_run, TI.state.in_(_IN_PROGRESS))))
            and not self._is_held()
        )

    def _triggers(self) -> list[Any]:
        """Return the triggers of task instances that have just deferred, or of all that have."""
        where = TI.state == TaskInstanceState.DEFERRED
        if not self._look_at_all:
            keys = [
                key for key, (_, _, state, *_) in self._changed.items() if state == TaskInstanceState.DEFERRED
            ]
            if not keys:
                return []
            where = and_(where, self._any_of(keys))
        found = select(TI.task_id, TI.map_index, TI.trigger_id).where(self._of_run, where)
        triggers = sorted([*row] for row in self.session.execute(found) if row.trigger_id is not None)
        move_to_worker_queue([trigger_id for *_, trigger_id in triggers], self.session)
        return triggers

    def _timers(self, request: PassInput) -> list[Timer]:
        """Return when what waits, among the task instances that this pass has seen, is due; or all on a resync."""
        where = TI.state.in_((*_RUNNABLE, *_PARKED))
        if not request.resync:
            where = and_(where, self._any_of({*request.finished, *request.due, *self._changed}))
        timers = []
        for ti in self._load(where):
            if ti.state == TaskInstanceState.UP_FOR_RETRY:
                at, why = ti.next_retry_datetime(), f"retry of {ti.task_id}"
            elif ti.state in _PARKED:
                at, why = ti.trigger_timeout, f"timeout of {ti.task_id}"
            else:
                at = self.session.scalar(
                    select(TaskReschedule.reschedule_date)
                    .where(TaskReschedule.ti_id == ti.id)
                    .order_by(TaskReschedule.id.desc())
                    .limit(1)
                )
                why = f"next poke of {ti.task_id}"
            if at is not None:
                timers.append(Timer(ti.task_id, ti.map_index, at.timestamp(), why))
        return timers

    def _tell_later_runs(self) -> None:
        if self._look_at_all:
            past_dependencies.resync_later_runs(self.dag_run, self.dag, self.session)
        else:
            ended = {
                task_id
                for task_id, _, state, *_ in self._changed.values()
                if state in past_dependencies.SATISFYING_STATES
            }
            past_dependencies.wake_later_runs(self.dag_run, self.dag, ended, self.session)


def _changes(rows: list[Any]) -> list[_Change]:
    by_task: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_task[row.task_id].append(row)
    return [
        _Change(
            task_id,
            {row.map_index for row in of_task},
            all(row.state == TaskInstanceState.SUCCESS for row in of_task),
        )
        for task_id, of_task in by_task.items()
    ]
