"""The runs that Temporal executes: one row for each, from its assignment until it ends.

Every function works in the transaction of its caller, so that a run's row and its state change together.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from airflow._shared.timezones import timezone
from sqlalchemy import and_, delete, insert, select, tuple_, update

from temporal_airflow_nb.orchestration.outbox import outbox, tables

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.orm import Session


def assign(dag_id: str, run_id: str, session: Session, *, on_worker_lost: str | None = None) -> None:
    """
    Assign a run to Temporal, from the commit of ``session`` until the run ends.

    ``on_worker_lost``, ``"rerun"`` or ``"fail"``, then overrides the worker's setting for this run.
    """
    if not is_managed(dag_id, run_id, session):
        row = {"dag_id": dag_id, "run_id": run_id, "created_at": timezone.utcnow()}
        session.execute(insert(tables.managed_runs).values(**row))
    if on_worker_lost is not None:
        where = _is_row_of(tables.managed_runs, dag_id, run_id)
        session.execute(update(tables.managed_runs).where(where).values(on_worker_lost=on_worker_lost))


def get_on_worker_lost(dag_id: str, run_id: str, session: Session) -> str | None:
    """Return the ``on_worker_lost`` of a run, also after it was cleared; None if it has none."""
    # Between the end of a run and its next start, the second table has the value: `unassign` has left it there.
    for table in (tables.managed_runs, tables.workflows):
        query = select(table.c.on_worker_lost).where(_is_row_of(table, dag_id, run_id))
        chosen: str | None = session.scalar(query)
        if chosen is not None:
            return chosen
    return None


def take_over(dag_id: str, run_id: str, session: Session) -> None:
    """Assign a run to Temporal and ask the dispatcher to start its workflow, from the commit on."""
    assign(dag_id, run_id, session)
    outbox.notify(dag_id, run_id, outbox.START, session)


def is_managed(dag_id: str, run_id: str, session: Session) -> bool:
    """Return whether a run is assigned to Temporal."""
    query = select(tables.managed_runs.c.run_id).where(_is_row_of(tables.managed_runs, dag_id, run_id))
    return session.scalar(query) is not None


def unassign(dag_id: str, run_id: str, session: Session) -> None:
    """Remove a run that has ended, but keep its ``on_worker_lost``: the run may be cleared."""
    if (chosen := get_on_worker_lost(dag_id, run_id, session)) is not None:
        where = _is_row_of(tables.workflows, dag_id, run_id)
        session.execute(update(tables.workflows).where(where).values(on_worker_lost=chosen))
    session.execute(delete(tables.managed_runs).where(_is_row_of(tables.managed_runs, dag_id, run_id)))


def list_unfinished_runs(
    session: Session, among: Collection[tuple[str, str]] | None = None
) -> set[tuple[str, str]]:
    """Return ``(dag_id, run_id)`` of each managed run, of those in ``among`` if given, that is running in Airflow."""
    from airflow.models.dagrun import DagRun

    query = (
        select(DagRun.dag_id, DagRun.run_id)
        .join(
            tables.managed_runs,
            (tables.managed_runs.c.dag_id == DagRun.dag_id) & (tables.managed_runs.c.run_id == DagRun.run_id),
        )
        .where(DagRun.state == "running")
    )
    if among is not None:
        query = query.where(tuple_(DagRun.dag_id, DagRun.run_id).in_(list(among)))
    return {(row.dag_id, row.run_id) for row in session.execute(query)}


def _is_row_of(table: Table, dag_id: str, run_id: str) -> ColumnElement[bool]:
    return and_(table.c.dag_id == dag_id, table.c.run_id == run_id)
