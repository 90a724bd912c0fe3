"""Our two tables in Airflow's database: which runs are ours, and what Temporal has yet to hear of them.

A row of the outbox commits with the change it tells of, so that neither can be lost without the other; the
dispatcher in the worker delivers it. No other process talks to Temporal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    delete,
    exists,
    insert,
    inspect,
    or_,
    select,
    text,
)

from temporal_airflow_nb.tasks.database import after_commit

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

metadata = MetaData()

managed_runs = Table(
    "temporal_airflow_run",
    metadata,
    Column("dag_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
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
)

START = "start"
RESYNC = "resync"
"""Something changed outside the workflow."""
WAKE = "wake"
"""The run got a slot; or, with a ``task_id``, what this task of it waits for in an earlier run has ended."""
UNPAUSED = "unpaused"
"""Something may start. It is kept until the DAG isn't paused any more."""

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
    """Create the tables where they are missing. They have no foreign keys: ``airflow db clean`` passes them by."""
    metadata.create_all(connection)
    if "task_id" not in {column["name"] for column in inspect(connection).get_columns(outbox.name)}:
        connection.execute(text(f"ALTER TABLE {outbox.name} ADD COLUMN task_id VARCHAR(250)"))


def take_over(dag_id: str, run_id: str, session: Session) -> None:
    """Mark a run as ours and have its workflow started, when ``session`` commits."""
    run = {"dag_id": dag_id, "run_id": run_id}
    if not is_managed(dag_id, run_id, session):
        session.execute(insert(managed_runs).values(**run, created_at=timezone.utcnow()))
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


def waiting(session: Session, limit: int = 100) -> list[Message]:
    """Return what has to be delivered, oldest first."""
    from airflow.models.dag import DagModel

    columns = (outbox.c.id, outbox.c.dag_id, outbox.c.run_id, outbox.c.kind, outbox.c.task_id)
    paused = exists().where(DagModel.dag_id == outbox.c.dag_id, DagModel.is_paused)
    found = select(*columns).where(or_(outbox.c.kind != UNPAUSED, ~paused)).order_by(outbox.c.id).limit(limit)
    return [Message(*row) for row in session.execute(found)]


def delivered(ids: Iterable[int], session: Session) -> None:
    """Forget messages that have arrived."""
    session.execute(delete(outbox).where(outbox.c.id.in_(list(ids))))


def release(dag_id: str, run_id: str, session: Session) -> None:
    """Forget a run that has ended."""
    session.execute(
        delete(managed_runs).where(managed_runs.c.dag_id == dag_id, managed_runs.c.run_id == run_id)
    )


def unfinished(session: Session) -> list[Any]:
    """Return ``(dag_id, run_id)`` of each run of ours that Airflow holds to be running."""
    from airflow.models.dagrun import DagRun

    return list(
        session.execute(
            select(DagRun.dag_id, DagRun.run_id)
            .join(
                managed_runs,
                (managed_runs.c.dag_id == DagRun.dag_id) & (managed_runs.c.run_id == DagRun.run_id),
            )
            .where(DagRun.state == "running")
        )
    )
