"""Our table of time schedules: which DAGs Temporal's Schedules are the clock of, and why others have none."""

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
    """What is known of a DAG's schedule; with a ``reason``, Airflow's scheduler is its clock."""

    dag_id: str
    schedule_id: str
    fingerprint: str
    reason: str | None


def select_native_dag_ids() -> Select[tuple[str]]:
    """Return the ids of the DAGs whose clock is Temporal, as a subquery for ``IN``."""
    return select(schedules.c.dag_id).where(schedules.c.reason.is_(None))


def is_natively_scheduled(dag_id: str, session: Session) -> bool:
    """Return whether Temporal is the clock of a DAG."""
    found = select_native_dag_ids().where(schedules.c.dag_id == dag_id)
    return session.scalar(found) is not None


def list_unscheduled(session: Session) -> list[tuple[str, str]]:
    """
    Return ``(dag_id, reason)`` of each DAG whose timetable stays with Airflow's scheduler, by ``dag_id``.

    For the two ``doctor`` commands. It is empty where native scheduling is off.
    """
    rows = session.execute(
        select(schedules.c.dag_id, schedules.c.reason)
        .where(schedules.c.reason.is_not(None))
        .order_by(schedules.c.dag_id)
    )
    return [(row.dag_id, row.reason) for row in rows]


def describe(session: Session) -> str:
    """Return, for the ``doctor`` commands, how many DAGs Temporal is the clock of, and which of ours it isn't."""
    native = session.scalars(select(func.count()).select_from(select_native_dag_ids().subquery())).one()
    others = list_unscheduled(session)
    if not native and not others:
        return "on, for no DAG yet" if environment.native_scheduling() else "off"
    lines = [f"{dag_id}: {reason}" for dag_id, reason in others]
    said = f"{native} in Temporal"
    return "\n".join([f"{said}; {len(lines)} with Airflow's scheduler:", *lines]) if lines else said


def read_records(session: Session) -> dict[str, ScheduleRecord]:
    """Return what is known, by ``dag_id``."""
    columns = (schedules.c.dag_id, schedules.c.schedule_id, schedules.c.fingerprint, schedules.c.reason)
    return {row.dag_id: ScheduleRecord(*row) for row in session.execute(select(*columns))}


def save_record(row: ScheduleRecord, session: Session) -> None:
    """Store what is now true of a DAG's schedule."""
    values = {
        **row._asdict(),
        "reason": row.reason and row.reason[:500],
        "checked_at": timezone.utcnow(),
    }
    where = schedules.c.dag_id == row.dag_id
    if session.scalar(select(schedules.c.dag_id).where(where)) is None:
        session.execute(insert(schedules).values(**values))
    else:
        session.execute(update(schedules).where(where).values(**values))


def delete_records(dag_ids: Iterable[str], session: Session) -> None:
    """Leave DAGs to Airflow's scheduler."""
    session.execute(delete(schedules).where(schedules.c.dag_id.in_(list(dag_ids))))
