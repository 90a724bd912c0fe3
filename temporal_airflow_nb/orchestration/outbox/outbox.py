"""Messages to the workflows of runs, kept in Airflow's database until they are delivered.

A message commits in the transaction of the change that it reports: neither can be lost without the other. Any process
of Airflow writes messages; only the dispatcher in the worker process reads them and talks to Temporal. Delivery is at
least once: a dispatcher that dies between the delivery and the deletion of a message leaves it to the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from airflow._shared.timezones import timezone
from sqlalchemy import and_, delete, exists, insert, or_, select, update

from temporal_airflow_nb.orchestration.outbox import tables
from temporal_airflow_nb.orchestration.outbox.rollout import dag_is_inactive
from temporal_airflow_nb.tasks.database import after_commit

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

QUEUED = "queued"
"""The run is queued and its DAG is one that Temporal executes: the worker starts the run as soon as limits allow."""
START = "start"
"""The run is running: its workflow has to be started."""
RESYNC = "resync"
"""Something changed outside the workflow."""
WAKE = "wake"
"""The run got a slot; or, with a ``task_id``, this task's dependency on an earlier run is met."""
UNPAUSED = "unpaused"
"""Tasks of the run are ready, but its DAG is inactive: the message is kept until the DAG is active again."""

# Longer than a delivery: Temporal's SDK repeats a failed request for up to ten seconds. If the dispatcher dies, another
# one delivers the message after this time.
_CLAIM = timedelta(seconds=15)

# Filled while the worker starts, and never changed after that, so that threads read it without a lock.
_listeners: list[Callable[[], None]] = []


def add_listener(listener: Callable[[], None]) -> None:
    """Call ``listener`` each time this process has committed a message, in the thread that commits."""
    _listeners.append(listener)


class Message(NamedTuple):
    """A row of the outbox."""

    id: int
    dag_id: str
    run_id: str
    kind: str
    task_id: str | None = None


def notify(dag_id: str, run_id: str, kind: str, session: Session, task_id: str | None = None) -> None:
    """Add a message to a run's workflow, which the dispatcher delivers after ``session`` commits."""
    row = {"dag_id": dag_id, "run_id": run_id, "kind": kind, "task_id": task_id}
    # A statement rather than an object of the session: `session_listeners` calls this while the session flushes.
    session.execute(insert(tables.outbox).values(**row, created_at=timezone.utcnow()))
    for listener in _listeners:
        after_commit(session, listener)


def is_pending(dag_id: str, run_id: str, kind: str, session: Session) -> bool:
    """Return whether a run has an undelivered message of this kind."""
    query = select(tables.outbox.c.id).where(
        tables.outbox.c.dag_id == dag_id, tables.outbox.c.run_id == run_id, tables.outbox.c.kind == kind
    )
    return session.scalar(query.limit(1)) is not None


def has_deliverable(session: Session) -> bool:
    """Return whether a message can be delivered now."""
    return session.scalar(select(tables.outbox.c.id).where(_is_deliverable()).limit(1)) is not None


def claim(session: Session, limit: int = 100) -> list[Message]:
    """Return the oldest messages that can be delivered now, and claim them for 15 seconds."""
    columns = (
        tables.outbox.c.id,
        tables.outbox.c.dag_id,
        tables.outbox.c.run_id,
        tables.outbox.c.kind,
        tables.outbox.c.task_id,
    )
    query = select(*columns).where(_is_deliverable()).order_by(tables.outbox.c.id).limit(limit)
    # The row locks end with this transaction, before the delivery: `claimed_until` protects the messages after that.
    # SQLAlchemy omits FOR UPDATE on SQLite; there `transaction()` has taken the write lock before this query.
    messages = [Message(*row) for row in session.execute(query.with_for_update(skip_locked=True))]
    _set_claim([message.id for message in messages], timezone.utcnow() + _CLAIM, session)
    return messages


def release(ids: Collection[int], session: Session) -> None:
    """Give up the claim on messages that couldn't be delivered, so that they are claimed again."""
    _set_claim(ids, None, session)


def remove_delivered(ids: Iterable[int], session: Session) -> None:
    """Delete messages that have been delivered."""
    session.execute(delete(tables.outbox).where(tables.outbox.c.id.in_(list(ids))))


def _set_claim(ids: Collection[int], until: datetime | None, session: Session) -> None:
    if ids:
        session.execute(update(tables.outbox).where(tables.outbox.c.id.in_(ids)).values(claimed_until=until))


def _is_deliverable() -> ColumnElement[bool]:
    from airflow.models.dag import DagModel

    is_inactive = exists().where(DagModel.dag_id == tables.outbox.c.dag_id, dag_is_inactive())
    is_free = or_(tables.outbox.c.claimed_until.is_(None), tables.outbox.c.claimed_until < timezone.utcnow())
    return and_(is_free, or_(tables.outbox.c.kind != UNPAUSED, ~is_inactive))
