"""Messages to the workflows of runs, stored in Airflow's database until the dispatcher has delivered them.

A message commits in the transaction of the change that it is about: neither can be lost without the other. Only the
dispatcher in the worker reads messages; no other process talks to Temporal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow._shared.timezones import timezone
from sqlalchemy import and_, delete, exists, insert, or_, select, update

from temporal_airflow_nb.orchestration.outbox import tables
from temporal_airflow_nb.orchestration.outbox.rollout import dag_is_inactive
from temporal_airflow_nb.tasks.database import after_commit

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

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


def notify(dag_id: str, run_id: str, kind: str, session: Session, task_id: str | None = None) -> None:
    """Have the dispatcher tell a run's workflow, when ``session`` commits."""
    row = {"dag_id": dag_id, "run_id": run_id, "kind": kind, "task_id": task_id}
    session.execute(insert(tables.outbox).values(**row, created_at=timezone.utcnow()))
    for listener in _listeners:
        after_commit(session, listener)


def is_kept(dag_id: str, run_id: str, kind: str, session: Session) -> bool:
    """Return whether such a message of a run has yet to be delivered."""
    found = select(tables.outbox.c.id).where(
        tables.outbox.c.dag_id == dag_id, tables.outbox.c.run_id == run_id, tables.outbox.c.kind == kind
    )
    return session.scalar(found.limit(1)) is not None


def are_waiting(session: Session) -> bool:
    """Return whether there is something to deliver."""
    return session.scalar(select(tables.outbox.c.id).where(_deliverable()).limit(1)) is not None


def claim(session: Session, limit: int = 100) -> list[Message]:
    """Return what has to be delivered, oldest first; nobody else gets it for a while."""
    columns = (
        tables.outbox.c.id,
        tables.outbox.c.dag_id,
        tables.outbox.c.run_id,
        tables.outbox.c.kind,
        tables.outbox.c.task_id,
    )
    found = select(*columns).where(_deliverable()).order_by(tables.outbox.c.id).limit(limit)
    messages = [Message(*row) for row in session.execute(found.with_for_update(skip_locked=True))]
    _set_claim([message.id for message in messages], timezone.utcnow() + _CLAIM, session)
    return messages


def give_back(ids: Collection[int], session: Session) -> None:
    """Have messages that couldn't be delivered be claimed again."""
    _set_claim(ids, None, session)


def _set_claim(ids: Collection[int], until: datetime | None, session: Session) -> None:
    if ids:
        session.execute(update(tables.outbox).where(tables.outbox.c.id.in_(ids)).values(claimed_until=until))


def _deliverable() -> Any:
    from airflow.models.dag import DagModel

    rests = exists().where(DagModel.dag_id == tables.outbox.c.dag_id, dag_is_inactive())
    free = or_(tables.outbox.c.claimed_until.is_(None), tables.outbox.c.claimed_until < timezone.utcnow())
    return and_(free, or_(tables.outbox.c.kind != UNPAUSED, ~rests))


def delivered(ids: Iterable[int], session: Session) -> None:
    """Forget messages that have arrived."""
    session.execute(delete(tables.outbox).where(tables.outbox.c.id.in_(list(ids))))
