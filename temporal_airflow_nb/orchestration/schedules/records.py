"""The table of schedules: the DAGs that have a Temporal Schedule, and why others have none.

Workers write it (``synchronizer.py``). Airflow's scheduler reads it in its query for due DAGs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow._shared.timezones import timezone
from sqlalchemy import delete, func, insert, select, update

from temporal_airflow_nb.config import environment
from temporal_airflow_nb.orchestration.outbox.tables import schedules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session
    from sqlalchemy.sql import Select


class ScheduleRecord(NamedTuple):
    """The state of a DAG's schedule; with a ``reason``, Airflow's scheduler creates its runs."""

    dag_id: str
    schedule_id: str
    fingerprint: str
    reason: str | None


def select_native_dag_ids() -> Select[tuple[str]]:
    """Return a subquery of the ids of the DAGs whose runs a Temporal Schedule creates."""
    return select(schedules.c.dag_id).where(schedules.c.reason.is_(None))


def is_natively_scheduled(dag_id: str, session: Session) -> bool:
    """Return whether a Temporal Schedule creates the runs of a DAG."""
    found = select_native_dag_ids().where(schedules.c.dag_id == dag_id)
    return session.scalar(found) is not None


def list_unscheduled(session: Session) -> list[tuple[str, str]]:
    """
    Return ``(dag_id, reason)`` of each DAG whose runs Airflow's scheduler creates, ordered by ``dag_id``.

    The list is empty if native scheduling is off. Both ``doctor`` commands show it.
    """
    rows = session.execute(
        select(schedules.c.dag_id, schedules.c.reason)
        .where(schedules.c.reason.is_not(None))
        .order_by(schedules.c.dag_id)
    )
    return [(row.dag_id, row.reason) for row in rows]


def describe(session: Session) -> str:
    """Return the number of Temporal Schedules and the DAGs without one, as text for ``doctor``."""
    native = session.scalars(select(func.count()).select_from(select_native_dag_ids().subquery())).one()
    others = list_unscheduled(session)
    if not native and not others:
        return "on, for no DAG yet" if environment.native_scheduling() else "off"
    lines = [f"{dag_id}: {reason}" for dag_id, reason in others]
    text = f"{native} in Temporal"
    return "\n".join([f"{text}; {len(lines)} with Airflow's scheduler:", *lines]) if lines else text


def read_records(session: Session) -> dict[str, ScheduleRecord]:
    """Return the records of all DAGs, by ``dag_id``."""
    columns = (schedules.c.dag_id, schedules.c.schedule_id, schedules.c.fingerprint, schedules.c.reason)
    return {row.dag_id: ScheduleRecord(*row) for row in session.execute(select(*columns))}


def save_record(record: ScheduleRecord, session: Session) -> None:
    """Insert or update the record of a DAG."""
    values = {
        **record._asdict(),
        "reason": record.reason and record.reason[:500],
        "checked_at": timezone.utcnow(),
    }
    where = schedules.c.dag_id == record.dag_id
    if session.scalar(select(schedules.c.dag_id).where(where)) is None:
        session.execute(insert(schedules).values(**values))
    else:
        session.execute(update(schedules).where(where).values(**values))


def delete_records(dag_ids: Iterable[str], session: Session) -> None:
    """Delete the records of DAGs: from then on, Airflow's scheduler creates their runs."""
    session.execute(delete(schedules).where(schedules.c.dag_id.in_(list(dag_ids))))
