"""Our tables in Airflow's database: which runs are ours, what Temporal has yet to hear of them, and what is shown.

A row of the outbox commits with the change it tells of, so that neither can be lost without the other; the
dispatcher in the worker delivers it. No other process talks to Temporal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow._shared.timezones import timezone
from airflow.utils.sqlalchemy import UtcDateTime
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    and_,
    delete,
    exists,
    insert,
    inspect,
    or_,
    select,
    text,
    tuple_,
    update,
)

from temporal_airflow_nb.orchestration import rollout
from temporal_airflow_nb.tasks.database import after_commit

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

metadata = MetaData()

managed_runs = Table(
    "temporal_airflow_run",
    metadata,
    Column("dag_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("on_worker_lost", String(10), nullable=True),
    PrimaryKeyConstraint("dag_id", "run_id"),
)

outbox = Table(
    "temporal_airflow_outbox",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("dag_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("task_id", String(250), nullable=True),
    Column("claimed_until", UtcDateTime, nullable=True),
)

workers = Table(
    "temporal_airflow_worker",
    metadata,
    Column("identity", String(250), primary_key=True),
    Column("hostname", String(250), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("address", String(250), nullable=False),
    Column("namespace", String(250), nullable=False),
    Column("task_queues", String(500), nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("error", String(500), nullable=True),
    Column("error_since", UtcDateTime, nullable=True),
)

workflows = Table(
    "temporal_airflow_workflow",
    metadata,
    Column("dag_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("workflow_id", String(520), nullable=False),
    Column("temporal_run_id", String(250), nullable=False),
    Column("namespace", String(250), nullable=False),
    Column("task_queue", String(250), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=True),
    Column("state", String(50), nullable=True),
    Column("on_worker_lost", String(10), nullable=True),
    PrimaryKeyConstraint("dag_id", "run_id"),
)

schedules = Table(
    "temporal_airflow_schedule",
    metadata,
    Column("dag_id", String(250), primary_key=True),
    Column("schedule_id", String(500), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("reason", String(500), nullable=True),
    Column("checked_at", UtcDateTime, nullable=False),
)

QUEUED = "queued"
"""A run that is to be ours waits to be started."""
START = "start"
RESYNC = "resync"
"""Something changed outside the workflow."""
WAKE = "wake"
"""The run got a slot; or, with a ``task_id``, what this task of it waits for in an earlier run has ended."""
UNPAUSED = "unpaused"
"""Something may start. It is kept until the DAG doesn't rest any more."""

_CLAIM = timedelta(seconds=15)

_listeners: list[Callable[[], None]] = []


def on_message(listener: Callable[[], None]) -> None:
    """Have ``listener`` called when this process has committed a message."""
    _listeners.append(listener)


class Message(NamedTuple):
    """A row of the outbox."""

    id: int
    dag_id: str
    run_id: str
    kind: str
    task_id: str | None = None


def create_tables(connection: Connection) -> None:
    """Create what is missing. The tables have no foreign keys: ``airflow db clean`` passes them by."""
    from temporal_airflow_nb.orchestration.turns import Turn, wait_for_turn

    if connection.dialect.name == "sqlite" and not connection.connection.in_transaction:  # type: ignore[attr-defined]
        connection.execute(text("BEGIN IMMEDIATE"))
    wait_for_turn(connection, Turn.TABLES)
    metadata.create_all(connection)
    for column in missing_columns(connection):
        kind = column.type.compile(connection.dialect)
        connection.execute(text(f"ALTER TABLE {column.table.name} ADD COLUMN {column.name} {kind}"))


def missing_columns(connection: Connection) -> list[Column[Any]]:
    """Return the columns of our tables that the database hasn't got."""
    database = inspect(connection)
    there = set(database.get_table_names())
    missing: list[Column[Any]] = []
    for table in metadata.sorted_tables:
        known = {c["name"] for c in database.get_columns(table.name)} if table.name in there else set()
        missing += [column for column in table.columns if column.name not in known]
    return missing


def mark(dag_id: str, run_id: str, session: Session, *, on_worker_lost: str | None = None) -> None:
    """
    Have a run be ours, from when ``session`` commits until the run ends.

    ``on_worker_lost``, ``"rerun"`` or ``"fail"``, is then the run's own, in place of the worker's setting.
    """
    if not is_managed(dag_id, run_id, session):
        row = {"dag_id": dag_id, "run_id": run_id, "created_at": timezone.utcnow()}
        session.execute(insert(managed_runs).values(**row))
    if on_worker_lost is not None:
        mine = (managed_runs.c.dag_id == dag_id) & (managed_runs.c.run_id == run_id)
        session.execute(update(managed_runs).where(mine).values(on_worker_lost=on_worker_lost))


def on_worker_lost(dag_id: str, run_id: str, session: Session) -> str | None:
    """Return what was chosen for a run whose worker is lost, also before it was cleared; None where nothing was."""
    for table in (managed_runs, workflows):
        found = select(table.c.on_worker_lost).where(table.c.dag_id == dag_id, table.c.run_id == run_id)
        if (chosen := session.scalar(found)) is not None:
            return chosen
    return None


def take_over(dag_id: str, run_id: str, session: Session) -> None:
    """Mark a run as ours and have its workflow started, when ``session`` commits."""
    mark(dag_id, run_id, session)
    notify(dag_id, run_id, START, session)


def notify(dag_id: str, run_id: str, kind: str, session: Session, task_id: str | None = None) -> None:
    """Have the dispatcher tell a run's workflow, when ``session`` commits."""
    row = {"dag_id": dag_id, "run_id": run_id, "kind": kind, "task_id": task_id}
    session.execute(insert(outbox).values(**row, created_at=timezone.utcnow()))
    for listener in _listeners:
        after_commit(session, listener)


def is_managed(dag_id: str, run_id: str, session: Session) -> bool:
    """Return whether a run is ours."""
    found = select(managed_runs.c.run_id).where(
        managed_runs.c.dag_id == dag_id, managed_runs.c.run_id == run_id
    )
    return session.scalar(found) is not None


def is_kept(dag_id: str, run_id: str, kind: str, session: Session) -> bool:
    """Return whether such a message of a run has yet to be delivered."""
    found = select(outbox.c.id).where(
        outbox.c.dag_id == dag_id, outbox.c.run_id == run_id, outbox.c.kind == kind
    )
    return session.scalar(found.limit(1)) is not None


def are_waiting(session: Session) -> bool:
    """Return whether there is something to deliver."""
    return session.scalar(select(outbox.c.id).where(_deliverable()).limit(1)) is not None


def claim(session: Session, limit: int = 100) -> list[Message]:
    """Return what has to be delivered, oldest first; nobody else gets it for a while."""
    columns = (outbox.c.id, outbox.c.dag_id, outbox.c.run_id, outbox.c.kind, outbox.c.task_id)
    found = select(*columns).where(_deliverable()).order_by(outbox.c.id).limit(limit)
    messages = [Message(*row) for row in session.execute(found.with_for_update(skip_locked=True))]
    _set_claim([message.id for message in messages], timezone.utcnow() + _CLAIM, session)
    return messages


def give_back(ids: Collection[int], session: Session) -> None:
    """Have messages that couldn't be delivered be claimed again."""
    _set_claim(ids, None, session)


def _set_claim(ids: Collection[int], until: datetime | None, session: Session) -> None:
    if ids:
        session.execute(update(outbox).where(outbox.c.id.in_(ids)).values(claimed_until=until))


def _deliverable() -> Any:
    from airflow.models.dag import DagModel

    rests = exists().where(DagModel.dag_id == outbox.c.dag_id, dag_rests())
    free = or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until < timezone.utcnow())
    return and_(free, or_(outbox.c.kind != UNPAUSED, ~rests))


def dag_rests() -> Any:
    """
    Return the condition on ``DagModel`` that no task of the DAG starts now, as in Airflow's scheduler.

    It is paused, or its file is gone. The latter is for a DAG processor to say, which an Airflow without a scheduler
    hasn't got either.
    """
    from airflow.models.dag import DagModel

    return DagModel.is_paused if rollout.is_alone() else or_(DagModel.is_paused, DagModel.is_stale)


def delivered(ids: Iterable[int], session: Session) -> None:
    """Forget messages that have arrived."""
    session.execute(delete(outbox).where(outbox.c.id.in_(list(ids))))


def release(dag_id: str, run_id: str, session: Session) -> None:
    """Forget a run that has ended, but for what was chosen for it: it may be cleared."""
    if (chosen := on_worker_lost(dag_id, run_id, session)) is not None:
        mine = (workflows.c.dag_id == dag_id) & (workflows.c.run_id == run_id)
        session.execute(update(workflows).where(mine).values(on_worker_lost=chosen))
    session.execute(
        delete(managed_runs).where(managed_runs.c.dag_id == dag_id, managed_runs.c.run_id == run_id)
    )


def unfinished(session: Session, among: Collection[tuple[str, str]] | None = None) -> set[tuple[str, str]]:
    """Return ``(dag_id, run_id)`` of our runs, or of those ``among`` others, that Airflow holds to be running."""
    from airflow.models.dagrun import DagRun

    found = (
        select(DagRun.dag_id, DagRun.run_id)
        .join(
            managed_runs,
            (managed_runs.c.dag_id == DagRun.dag_id) & (managed_runs.c.run_id == DagRun.run_id),
        )
        .where(DagRun.state == "running")
    )
    if among is not None:
        found = found.where(tuple_(DagRun.dag_id, DagRun.run_id).in_(list(among)))
    return {(row.dag_id, row.run_id) for row in session.execute(found)}
