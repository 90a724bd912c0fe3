"""One scheduling pass over one run: Airflow decides about the task instances that a change can affect.

Airflow's own scheduler evaluates every unfinished task instance of a run each time. A pass gives
``DagRun._get_ready_tis`` only the candidates, found along the edges of :class:`TaskGraph`, so that the cost of a
completion doesn't grow with the DAG.

The activity ``schedule_pass`` runs it in a thread of the worker, in one transaction. The caller has locked the row of
the run; the pass acquires the lock ``ASSIGN_SLOTS`` after that, near its end. It commits nothing and keeps nothing
between passes: the workflow sends what happened, and the pass reads everything else from the database.

Statements that write task instances (``UPDATE``, ``schedule_tis``) bypass the ORM objects in the session. Therefore
states are read as rows, and ``expire_all`` follows each evaluation.
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
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

# The XCom key under which Airflow's branch operators and short circuits store what they skip.
XCOM_SKIPMIXIN_KEY = "skipmixin_key"
_FIRST_CHECKED = 20
"""The number of upstream tasks to check first: the last in order are the most likely to be unfinished."""
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
_SUSPENDED = (TaskInstanceState.DEFERRED, TaskInstanceState.AWAITING_INPUT)


def _is_none_or_in(states: Iterable[Any]) -> ColumnElement[bool]:
    return or_(TI.state.is_(None), TI.state.in_([state for state in states if state is not None]))


@dataclass
class _EndedInstances:
    """Instances of one task that have ended."""

    task_id: str
    indexes: set[int]
    all_succeeded: bool


class SchedulingPass:
    """
    One scheduling pass of one run, within one transaction.

    Parameters
    ----------
    dag_run
        The run, whose row the caller has locked.
    dag
        The DAG of the run, in the version that it uses now.
    session
        The session of the transaction. The caller commits it.
    """

    def __init__(self, dag_run: DagRun, dag: SerializedDAG, session: Session) -> None:
        self.dag_run = dag_run
        self.dag = dag
        self.session = session
        self.graph: TaskGraph = get_graph(dag)
        self._of_run = and_(TI.dag_id == dag_run.dag_id, TI.run_id == dag_run.run_id)
        self._changed: dict[Key, Any] = {}
        self._includes_all = False
        self._may_have_timers = False
        inactive = select(DagModel.dag_id).where(DagModel.dag_id == dag_run.dag_id, rollout.dag_is_inactive())
        self._dag_is_inactive = session.scalar(inactive) is not None
        # Airflow's functions below take the DAG from here, instead of loading it again.
        dag_run.dag = dag

    def run(self, request: PassInput) -> PassResult:
        """Take the decisions that follow from ``request``; return what changed and what to start."""
        result = PassResult()
        self._includes_all = request.resync
        if request.resync:
            # Orphans and timeouts first: both change states that the evaluation reads.
            self._requeue_orphans(request)
            self._resume_timed_out([])
            self._propagate(self._evaluate(self._load_decidable()))
            self._record_differences(request)
        else:
            ended, due = self._read_events(request)
            self._propagate(ended)
            self._propagate(self._evaluate(due))
            if request.look:
                self._propagate(
                    self._evaluate(self._load(and_(TI.task_id.in_(request.look), _is_none_or_in(_RUNNABLE))))
                )
        # After every decision: it queues the tasks that these have scheduled. And late, because other passes and
        # schedulers wait for its lock until the commit.
        pool_slots.queue_tasks(self.dag_run, self.session, has_freed_slots=bool(request.finished))
        self._notify_later_runs()
        self._collect(request, result)
        return result

    def _requeue_orphans(self, request: PassInput) -> None:
        """Queue running tasks that have no activity: their workflow was lost together with Temporal's data."""
        known = {*request.in_flight, *request.finished}
        running = [(row.task_id, row.map_index) for row in self._rows(TI.state == TaskInstanceState.RUNNING)]
        if orphans := [key for key in running if key not in known]:
            self.session.execute(
                update(TI)
                .where(self._of_run, self._any_of(orphans))
                .values(state=TaskInstanceState.QUEUED)
                .execution_options(synchronize_session=False)
            )

    def _load_decidable(self) -> list[TI]:
        """Return the task instances that Airflow may decide: no dependency, or one that has ended."""
        ended = set(
            self.session.scalars(
                select(TI.task_id).where(self._of_run, TI.state.in_(State.finished)).distinct()
            )
        )
        wanted = [
            task_id
            for task_id, dependencies in self.graph.depends_on.items()
            if not dependencies
            or not dependencies.isdisjoint(ended)
            or self.dag.task_dict[task_id].trigger_rule == "always"
        ]
        return self._load(and_(TI.task_id.in_(wanted), _is_none_or_in(_RUNNABLE)))

    def _read_events(self, request: PassInput) -> tuple[list[_EndedInstances], list[TI]]:
        """Read the task instances of the request; return the ended ones, and those that may be due."""
        if request.due:
            self._resume_timed_out(request.due)
        rows = self._rows(self._any_of([*request.finished, *request.due]))
        # Recorded even if unchanged: the workflow has marked them as running itself, without the real times.
        for row in rows:
            self._record(row)
        finished = [row for row in rows if row.state in State.finished]
        due = [(row.task_id, row.map_index) for row in rows if row.state in SCHEDULEABLE_STATES]
        self._may_have_timers = bool(due) or any(row.state in _SUSPENDED for row in rows)
        if self.dag.fail_fast and any(row.state == TaskInstanceState.FAILED for row in rows):
            # With `fail_fast`, the failure of a task makes Airflow end every other task of the run.
            self._includes_all = True
            finished = self._rows(TI.state.in_(State.finished))
        finished += self._skipped_by(finished)
        return _group_by_task(finished), self._load(self._any_of(due)) if due else []

    def _resume_timed_out(self, due: Iterable[Key]) -> None:
        """Let Airflow resume tasks whose trigger or human answer is overdue."""
        late = [TI.state.in_(_SUSPENDED), TI.trigger_timeout < timezone.utcnow()]
        if due:
            late.append(self._any_of(due))
        states = set(self.session.scalars(select(TI.state).where(self._of_run, *late).distinct()))
        # Airflow's functions resume the late tasks of every run, so they are called only if this run has one. On
        # PostgreSQL their updates may deadlock with the pass of another run: the workflow then repeats this pass.
        if TaskInstanceState.DEFERRED in states:
            scheduler().check_trigger_timeouts(session=self.session)
        if TaskInstanceState.AWAITING_INPUT in states:
            scheduler().check_awaiting_input_timeouts(session=self.session)
        self.session.flush()

    def _skipped_by(self, rows: list[Any]) -> list[Any]:
        """Return the task instances that ended tasks have skipped, such as the other tasks of a branch."""
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
            self._record(row)
        return skipped

    def _propagate(self, ended: list[_EndedInstances]) -> None:
        """Evaluate the tasks that ended ones affect, then those that these affect, and so on."""
        while ended:
            ended = self._evaluate(self._load_candidates(ended))

    def _load_candidates(self, ended: list[_EndedInstances]) -> list[TI]:
        """Return the runnable task instances that ended ones affect."""
        # task id → map indexes, or None for every instance. Index -1 stands for a mapped task before its expansion.
        wanted: dict[str, set[int] | None] = {}
        for change in ended:
            for task_id in self.graph.affects.get(change.task_id, ()):
                if change.all_succeeded and self._has_unfinished_upstream(task_id):
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
        return self._load(and_(or_(*clauses), _is_none_or_in(_RUNNABLE))) if clauses else []

    def _has_unfinished_upstream(self, task_id: str) -> bool:
        """Return whether an upstream task that ``task_id`` needs is unfinished; checks the likely ones first."""
        upstream = self.graph.waits_for(task_id)
        for some in (upstream[:_FIRST_CHECKED], upstream[_FIRST_CHECKED:]):
            if some and self.session.scalar(
                select(exists().where(self._of_run, TI.task_id.in_(some), _is_none_or_in(State.unfinished)))
            ):
                return True
        return False

    def _load(self, where: Any) -> list[TI]:
        tis = self.session.scalars(select(TI).where(self._of_run, where)).all()
        known = self.dag.task_dict
        found = []
        for ti in tis:
            if ti.task_id in known:
                # Airflow's dependency checks read both attributes; a loaded row has no task, and would load the run.
                ti.task = known[ti.task_id]
                ti.dag_run = self.dag_run
                found.append(ti)
            else:
                # The DAG's new version doesn't have the task any more: see `DagRun.task_instance_scheduling_decisions`.
                ti.state = TaskInstanceState.REMOVED
        return sorted(found, key=lambda ti: (self.graph.order[ti.task_id], ti.map_index))

    def _evaluate(self, candidates: list[TI]) -> list[_EndedInstances]:
        """Let Airflow decide about the candidates; return those that ended without running."""
        if not candidates:
            return []
        task_ids = {ti.task_id for ti in candidates}
        before = {(ti.task_id, ti.map_index): ti.state for ti in candidates}
        dependencies = set().union(*(self.graph.depends_on[task_id] for task_id in task_ids))
        # Airflow derives the state of upstream tasks from this list, as far as the candidates depend on them.
        finished = (
            self._load(and_(TI.task_id.in_(sorted(dependencies)), TI.state.in_(State.finished)))
            if dependencies
            else []
        )
        # Private part of Airflow. Besides returning the ready ones, it expands mapped tasks and sets tasks to skipped
        # or upstream_failed: some of it in objects, which the flush writes, some in statements.
        ready, _, _ = self.dag_run._get_ready_tis(candidates, finished, session=self.session)
        self.session.flush()
        if ready and self._dag_is_inactive:
            self._request_wake_when_active()
        elif ready:
            self.dag_run.schedule_tis(ready, session=self.session)
            self.session.flush()
        self.session.expire_all()
        # Every instance of the tasks, not only the candidates: an expansion has added some.
        ended = []
        for row in self._rows(TI.task_id.in_(sorted(task_ids))):
            if row.state != before.get((row.task_id, row.map_index), "not seen before"):
                self._record(row)
                if row.state in State.finished:
                    ended.append(row)
                self._may_have_timers |= row.state in _SUSPENDED
        return _group_by_task(ended)

    def _request_wake_when_active(self) -> None:
        """Write a message that the run gets when its DAG is active again."""
        run = (self.dag_run.dag_id, self.dag_run.run_id)
        if not outbox.is_pending(*run, outbox.UNPAUSED, self.session):
            outbox.notify(*run, outbox.UNPAUSED, self.session)

    def _waits_for_active_dag(self) -> bool:
        """Return whether tasks could start if the DAG were active."""
        return self._dag_is_inactive and outbox.is_pending(
            self.dag_run.dag_id, self.dag_run.run_id, outbox.UNPAUSED, self.session
        )

    def _any_of(self, keys: Iterable[Key]) -> ColumnElement[bool]:
        by_task: dict[str, list[int]] = defaultdict(list)
        for task_id, map_index in keys:
            by_task[task_id].append(map_index)
        clauses = [
            and_(TI.task_id == task_id, TI.map_index.in_(indexes)) for task_id, indexes in by_task.items()
        ]
        return or_(*clauses) if clauses else false()

    def _rows(self, where: Any, *order: Any) -> list[Any]:
        return list(self.session.execute(select(*COLUMNS).where(self._of_run, where).order_by(*order)))

    def _record(self, row: Any) -> None:
        self._changed[row.task_id, row.map_index] = encode_row(row)

    def _record_differences(self, request: PassInput) -> None:
        """Record the task instances whose state or try number the workflow doesn't know."""
        known = {(task_id, map_index): (state, tries) for task_id, map_index, state, tries in request.known}
        in_flight = set(request.in_flight)
        for row in self._rows(true()):
            key = (row.task_id, row.map_index)
            # The workflow shows it as running already; the end of its activity reports its times.
            if key in in_flight and row.state in EXECUTION_STATES:
                continue
            state = None if row.state is None else str(row.state)
            if known.get(key, (None, 0)) != (state, row.try_number):
                self._record(row)

    def _collect(self, request: PassInput, result: PassResult) -> None:
        """Add to the result what the workflow has to start, to wait for and to stop."""
        in_flight = set(request.in_flight)
        # From the database rather than from this pass: the pass of another run, or `SlotWatcher`, may have queued them.
        # Tasks that the workers can't run at once wait in the order in which the workflow starts them.
        for row in self._rows(TI.state == TaskInstanceState.QUEUED, -TI.priority_weight, TI.map_index):
            if (row.task_id, row.map_index) not in in_flight:
                task = self.dag.task_dict.get(row.task_id)
                own_interpreter = bool(getattr(task, "run_as_user", None))
                queue = None if row.queue in (None, default_queue()) else row.queue
                result.ready.append(
                    TaskTry(
                        row.task_id, row.map_index, row.try_number, row.operator or "", queue, own_interpreter
                    )
                )
        if request.resync or self._may_have_timers:
            result.timers = self._timers(request)
        result.triggers, result.every_trigger = self._triggers(), self._includes_all
        if self._includes_all and in_flight:
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
            and not self._waits_for_active_dag()
        )

    def _triggers(self) -> list[Any]:
        """Return the triggers of newly deferred task instances; on a resync, of all deferred ones."""
        where = TI.state == TaskInstanceState.DEFERRED
        if not self._includes_all:
            keys = [
                key for key, (_, _, state, *_) in self._changed.items() if state == TaskInstanceState.DEFERRED
            ]
            if not keys:
                return []
            where = and_(where, self._any_of(keys))
        found = select(TI.task_id, TI.map_index, TI.trigger_id).where(self._of_run, where)
        triggers = sorted([*row] for row in self.session.execute(found) if row.trigger_id is not None)
        # A task that starts from its trigger gets one without a queue, which any triggerer of Airflow would run.
        move_to_worker_queue([trigger_id for *_, trigger_id in triggers], self.session)
        return triggers

    def _timers(self, request: PassInput) -> list[Timer]:
        """Return the times at which waiting task instances are due; on a resync, of all of them."""
        where = TI.state.in_((*_RUNNABLE, *_SUSPENDED))
        if not request.resync:
            where = and_(where, self._any_of({*request.finished, *request.due, *self._changed}))
        timers = []
        for ti in self._load(where):
            if ti.state == TaskInstanceState.UP_FOR_RETRY:
                at, why = ti.next_retry_datetime(), f"retry of {ti.task_id}"
            elif ti.state in _SUSPENDED:
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

    def _notify_later_runs(self) -> None:
        if self._includes_all:
            past_dependencies.resync_later_runs(self.dag_run, self.dag, self.session)
        else:
            ended = {
                task_id
                for task_id, _, state, *_ in self._changed.values()
                if state in past_dependencies.SATISFYING_STATES
            }
            past_dependencies.wake_later_runs(self.dag_run, self.dag, ended, self.session)


def _group_by_task(rows: list[Any]) -> list[_EndedInstances]:
    by_task: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_task[row.task_id].append(row)
    return [
        _EndedInstances(
            task_id,
            {row.map_index for row in instances},
            all(row.state == TaskInstanceState.SUCCESS for row in instances),
        )
        for task_id, instances in by_task.items()
    ]
