"""Write changes of runs by Airflow's processes to the outbox, in the transaction of the change.

Every process of a stock Airflow whose configuration names Temporal runs it: scheduler, API server, DAG processor,
commands. It listens to SQLAlchemy's sessions, because all code of Airflow that creates, clears, marks or deletes runs
uses the ORM, and no caller has to be known. A run is taken over when it goes from queued to running: by then, Airflow's
scheduler has checked pauses and limits.

The listeners are called in the thread that flushes, inside its transaction. They execute statements but add no objects
to the session, since a flush is under way.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, and_, event, exists, false, insert, inspect, literal, or_, select
from sqlalchemy.orm import ORMExecuteState, Session

from temporal_airflow_nb.errors import InvalidInputError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection
    from sqlalchemy.orm.attributes import History

_RUN, _TASK, _VERSION = "dag_run", "task_instance", "dag_version"
_RUN_ATTRIBUTES = ("_state", "clear_number")
_QUEUED, _RUNNING = "queued", "running"

log = logging.getLogger(__name__)

# Set before the first session of a worker, and never reset.
_disabled = False
# None until the first check. Several threads may check at the same time, and find the same.
_tables_exist: bool | None = None


def disable() -> None:
    """Write nothing in this process: it is a worker, which writes its messages explicitly."""
    global _disabled
    _disabled = True


def is_disabled() -> bool:
    """Return whether :func:`disable` was called."""
    return _disabled


def install() -> None:
    """Listen to every session of this process."""
    if not event.contains(Session, "after_flush", _after_flush):
        event.listen(Session, "after_flush", _after_flush)
        event.listen(Session, "do_orm_execute", _before_bulk_statement)
        event.listen(Engine, "savepoint", _before_savepoint)


def _before_savepoint(connection: Connection, _: str) -> None:
    """On SQLite, begin the transaction, so that a backfill commits all its runs at once."""
    from temporal_airflow_nb.tasks.database import begin_writing

    # Airflow creates each run of a backfill within a savepoint. Python's SQLite driver begins no transaction before a
    # SAVEPOINT: releasing the savepoint would commit each run by itself, and the worker would start the first ones
    # before the others exist.
    begin_writing(connection)


def _after_flush(session: Session, _: Any) -> None:
    if _disabled:
        return
    # At `after_flush`, the rows are written, but the session's lists and the history of attributes are still those from
    # before the flush.
    changed: dict[tuple[str, str], None] = {}
    deleted: dict[tuple[str, str], None] = {}
    queued: list[tuple[str, str]] = []
    started: list[tuple[str, str]] = []
    new_versions = {version.dag_id for version in session.new if _table_name(version) == _VERSION}
    for instance in session.new:
        if _table_name(instance) == _RUN and instance._state == _QUEUED:
            queued.append((instance.dag_id, instance.run_id))
    for instance in session.dirty:
        table = _table_name(instance)
        if table == _TASK and _has_changed(instance, "state"):
            changed[instance.dag_id, instance.run_id] = None
        elif table == _RUN and any(_has_changed(instance, name) for name in _RUN_ATTRIBUTES):
            run = (instance.dag_id, instance.run_id)
            if _has_changed(instance, "_state") and instance._state == _QUEUED:
                queued.append(run)
            # The history has the old state only if it was loaded: Airflow's sessions don't expire objects at a commit.
            if instance._state == _RUNNING and _QUEUED in inspect(instance).attrs._state.history.deleted:
                started.append(run)
            else:
                changed[run] = None
    for instance in session.deleted:
        if _table_name(instance) == _RUN:
            deleted[instance.dag_id, instance.run_id] = None
        elif _table_name(instance) == _TASK:
            changed[instance.dag_id, instance.run_id] = None
    if not (changed or deleted or new_versions or queued or started) or not _can_write(session):
        return
    # Messages before rows are deleted: `_resync` finds the runs that need one in the same table.
    if changed or deleted or new_versions:
        _resync(session.connection(), [*changed, *deleted], new_versions)
    if deleted:
        _delete_rows(session.connection(), list(deleted))
    if queued or started:
        _take_over(session, queued, started)


def _can_write(session: Session) -> bool:
    """Return whether the tables exist."""
    # Checked until they do. No scheduler starts without them (see `selftest`), so that no start of a run is missed.
    global _tables_exist
    if not _tables_exist:
        from temporal_airflow_nb.orchestration.outbox import tables

        before, _tables_exist = (
            _tables_exist,
            inspect(session.connection()).has_table(tables.outbox.name),
        )
        if before is None and not _tables_exist:
            log.error(
                "Changes of runs can't reach Temporal because its tables are missing. Run `airflow db migrate`."
            )
    return _tables_exist


# By name: Airflow's models aren't loaded yet when this module is.
def _table_name(instance: Any) -> str | None:
    return getattr(instance, "__tablename__", None)


def _has_changed(instance: Any, attribute: str) -> bool:
    history: History = inspect(instance).attrs[attribute].history
    return history.has_changes() and list(history.added) != list(history.deleted)


def _take_over(session: Session, queued: list[tuple[str, str]], started: list[tuple[str, str]]) -> None:
    """Assign started runs to Temporal, and ask the worker to start queued ones."""
    from temporal_airflow_nb.airflow_plugin import scheduler_filters
    from temporal_airflow_nb.orchestration.outbox import managed_runs, outbox, rollout

    try:
        configured = rollout.configured_rollout()
    except InvalidInputError as error:
        # No scheduler starts with this configuration: queued runs wait until it is corrected.
        if started:
            raise
        log.error("%s", error)
        return
    dag_ids = {dag_id for dag_id, _ in (*queued, *started)}
    managed_dag_ids = configured.managed(dag_ids, session) if configured is not None else set()
    for dag_id, run_id in queued:
        if dag_id in managed_dag_ids:
            outbox.notify(dag_id, run_id, outbox.QUEUED, session)
    for dag_id, run_id in started:
        if dag_id in managed_dag_ids or managed_runs.is_managed(dag_id, run_id, session):
            scheduler_filters.require_installed()
            managed_runs.take_over(dag_id, run_id, session)


def _resync(connection: Connection, runs: list[tuple[str, str]], dag_ids: set[str]) -> None:
    from temporal_airflow_nb.orchestration.outbox import tables

    _add_resync_messages(
        connection,
        or_(
            _any_of(tables.managed_runs, runs),
            tables.managed_runs.c.dag_id.in_(sorted(dag_ids)) if dag_ids else false(),
        ),
    )


def _add_resync_messages(connection: Connection, where: Any) -> None:
    """Add a message for each managed run whose row fulfils ``where``."""
    from airflow._shared.timezones import timezone

    from temporal_airflow_nb.orchestration.outbox import outbox, tables

    now = literal(timezone.utcnow(), tables.outbox.c.created_at.type)
    messages = select(
        tables.managed_runs.c.dag_id, tables.managed_runs.c.run_id, literal(outbox.RESYNC), now
    ).where(where)
    connection.execute(
        insert(tables.outbox).from_select(["dag_id", "run_id", "kind", "created_at"], messages)
    )


def _delete_rows(connection: Connection, runs: list[tuple[str, str]]) -> None:
    from temporal_airflow_nb.orchestration.outbox import tables

    connection.execute(tables.managed_runs.delete().where(_any_of(tables.managed_runs, runs)))
    connection.execute(tables.workflows.delete().where(_any_of(tables.workflows, runs)))


def _any_of(table: Any, runs: list[tuple[str, str]]) -> Any:
    clauses = [and_(table.c.dag_id == dag_id, table.c.run_id == run_id) for dag_id, run_id in runs]
    return or_(*clauses) if clauses else false()


def _before_bulk_statement(state: ORMExecuteState) -> None:
    """Report runs that one statement changes or deletes, of which no instance is ever flushed."""
    if _disabled or not (state.is_delete or state.is_update):
        return
    mapper = state.bind_mapper
    if mapper is None or getattr(mapper.class_, "__tablename__", None) != _RUN:
        return
    # Private parts of SQLAlchemy: `_values` has the columns that an UPDATE sets, `_where_criteria` its conditions.
    statement: Any = state.statement
    if state.is_update and not {"state", "_state"} & {
        getattr(column, "key", column) for column in statement._values or ()
    }:
        return
    # Without WHERE it is an ORM update by primary key, whose rows are parameters.
    if (state.is_update and not statement._where_criteria) or not _can_write(state.session):
        return
    from temporal_airflow_nb.orchestration.outbox import tables

    run = mapper.class_

    # Before the statement: afterwards, its WHERE might no longer match the runs that it has changed.
    def is_affected(table: Any) -> ColumnElement[bool]:
        return exists().where(
            run.dag_id == table.c.dag_id, run.run_id == table.c.run_id, *statement._where_criteria
        )

    connection = state.session.connection()
    _add_resync_messages(connection, is_affected(tables.managed_runs))
    if state.is_delete:
        for table in (tables.managed_runs, tables.workflows):
            connection.execute(table.delete().where(is_affected(table)))
