"""Writes to the outbox what the processes of Airflow do to runs, in the transaction in which they do it.

Whatever creates, clears, marks or deletes a run does so through the ORM: no caller has to be known. A run is taken over
where it goes from queued to running, after Airflow's scheduler has seen to pauses and limits.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, and_, event, exists, false, insert, inspect, literal, or_, select
from sqlalchemy.orm import ORMExecuteState, Session

from temporal_airflow_nb.errors import InvalidInputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

_RUN, _TASK, _VERSION = "dag_run", "task_instance", "dag_version"
_RUN_ATTRIBUTES = ("_state", "clear_number")
_QUEUED, _RUNNING = "queued", "running"

log = logging.getLogger(__name__)

_disabled = False
_tables_are_there: bool | None = None


def disable() -> None:
    """Have this process write nothing by itself: it is a worker, which knows what it does."""
    global _disabled
    _disabled = True


def is_disabled() -> bool:
    """Return whether this process is a worker."""
    return _disabled


def install() -> None:
    """Listen to every session of this process."""
    if not event.contains(Session, "after_flush", _after_flush):
        event.listen(Session, "after_flush", _after_flush)
        event.listen(Session, "do_orm_execute", _before_bulk)
        event.listen(Engine, "savepoint", _before_savepoint)


def _before_savepoint(connection: Connection, _: str) -> None:
    """Let a request that creates many runs, as of a backfill, end before the worker starts the first of them."""
    from temporal_airflow_nb.tasks.database import begin_writing

    begin_writing(connection)


def _after_flush(session: Session, _: Any) -> None:
    if _disabled:
        return
    changed: dict[tuple[str, str], None] = {}
    deleted: dict[tuple[str, str], None] = {}
    queued: list[tuple[str, str]] = []
    started: list[tuple[str, str]] = []
    new_versions = {version.dag_id for version in session.new if _table(version) == _VERSION}
    for instance in session.new:
        if _table(instance) == _RUN and instance._state == _QUEUED:
            queued.append((instance.dag_id, instance.run_id))
    for instance in session.dirty:
        table = _table(instance)
        if table == _TASK and _has_changed(instance, "state"):
            changed[instance.dag_id, instance.run_id] = None
        elif table == _RUN and any(_has_changed(instance, name) for name in _RUN_ATTRIBUTES):
            run = (instance.dag_id, instance.run_id)
            if _has_changed(instance, "_state") and instance._state == _QUEUED:
                queued.append(run)
            if instance._state == _RUNNING and _QUEUED in inspect(instance).attrs._state.history.deleted:
                started.append(run)
            else:
                changed[run] = None
    for instance in session.deleted:
        if _table(instance) == _RUN:
            deleted[instance.dag_id, instance.run_id] = None
        elif _table(instance) == _TASK:
            changed[instance.dag_id, instance.run_id] = None
    if not (changed or deleted or new_versions or queued or started) or not _can_tell(session):
        return
    if changed or deleted or new_versions:
        _resync(session.connection(), [*changed, *deleted], new_versions)
    if deleted:
        _release(session.connection(), list(deleted))
    if queued or started:
        _hand_over(session, queued, started)


def _can_tell(session: Session) -> bool:
    """Return whether our tables are there. No scheduler starts before they are, so that nothing is missed."""
    global _tables_are_there
    if not _tables_are_there:
        from temporal_airflow_nb.orchestration.outbox import tables

        before, _tables_are_there = (
            _tables_are_there,
            inspect(session.connection()).has_table(tables.outbox.name),
        )
        if before is None and not _tables_are_there:
            log.error("Temporal can't be told of runs before its tables are there: run `airflow db migrate`")
    return _tables_are_there


def _table(instance: Any) -> str | None:
    return getattr(instance, "__tablename__", None)


def _has_changed(instance: Any, attribute: str) -> bool:
    history = inspect(instance).attrs[attribute].history
    return history.has_changes() and list(history.added) != list(history.deleted)


def _hand_over(session: Session, queued: list[tuple[str, str]], started: list[tuple[str, str]]) -> None:
    """Take over the runs that have been started, and have the worker start those that wait to be."""
    from temporal_airflow_nb.airflow_plugin import scheduler_filters
    from temporal_airflow_nb.orchestration.outbox import managed_runs, outbox, rollout

    try:
        chosen = rollout.configured_rollout()
    except InvalidInputError as error:
        # No scheduler starts with it: what is queued waits until it is set right.
        if started:
            raise
        log.error("%s", error)
        return
    dag_ids = {dag_id for dag_id, _ in (*queued, *started)}
    ours = chosen.managed(dag_ids, session) if chosen is not None else set()
    for dag_id, run_id in queued:
        if dag_id in ours:
            outbox.notify(dag_id, run_id, outbox.QUEUED, session)
    for dag_id, run_id in started:
        if dag_id in ours or managed_runs.is_managed(dag_id, run_id, session):
            scheduler_filters.require_installed()
            managed_runs.take_over(dag_id, run_id, session)


def _resync(connection: Connection, runs: list[tuple[str, str]], dag_ids: set[str]) -> None:
    from temporal_airflow_nb.orchestration.outbox import tables

    _tell(
        connection,
        or_(
            _any_of(tables.managed_runs, runs),
            tables.managed_runs.c.dag_id.in_(sorted(dag_ids)) if dag_ids else false(),
        ),
    )


def _tell(connection: Connection, which: Any) -> None:
    """Have those of our runs look again of whose marks ``which`` is true."""
    from airflow._shared.timezones import timezone

    from temporal_airflow_nb.orchestration.outbox import outbox, tables

    now = literal(timezone.utcnow(), tables.outbox.c.created_at.type)
    found = select(
        tables.managed_runs.c.dag_id, tables.managed_runs.c.run_id, literal(outbox.RESYNC), now
    ).where(which)
    connection.execute(insert(tables.outbox).from_select(["dag_id", "run_id", "kind", "created_at"], found))


def _release(connection: Connection, runs: list[tuple[str, str]]) -> None:
    from temporal_airflow_nb.orchestration.outbox import tables

    connection.execute(tables.managed_runs.delete().where(_any_of(tables.managed_runs, runs)))
    connection.execute(tables.workflows.delete().where(_any_of(tables.workflows, runs)))


def _any_of(table: Any, runs: list[tuple[str, str]]) -> Any:
    clauses = [and_(table.c.dag_id == dag_id, table.c.run_id == run_id) for dag_id, run_id in runs]
    return or_(*clauses) if clauses else false()


def _before_bulk(state: ORMExecuteState) -> None:
    """Tell of runs that a single statement deletes, or whose state it sets: no instance of theirs is flushed."""
    if _disabled or not (state.is_delete or state.is_update):
        return
    mapper = state.bind_mapper
    if mapper is None or getattr(mapper.class_, "__tablename__", None) != _RUN:
        return
    statement: Any = state.statement
    if state.is_update and not {"state", "_state"} & {
        getattr(column, "key", column) for column in statement._values or ()
    }:
        return
    if (state.is_update and not statement._where_criteria) or not _can_tell(state.session):
        return
    from temporal_airflow_nb.orchestration.outbox import tables

    run = mapper.class_

    def concerned(table: Any) -> Any:
        return exists().where(
            run.dag_id == table.c.dag_id, run.run_id == table.c.run_id, *statement._where_criteria
        )

    connection = state.session.connection()
    _tell(connection, concerned(tables.managed_runs))
    if state.is_delete:
        for table in (tables.managed_runs, tables.workflows):
            connection.execute(table.delete().where(concerned(table)))
