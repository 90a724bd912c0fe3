"""Which runs Temporal executes: one row a run, from when it is assigned to Temporal until it ends."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from airflow._shared.timezones import timezone
from sqlalchemy import delete, insert, select, tuple_, update

from temporal_airflow_nb.orchestration.outbox import outbox, tables

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def assign(dag_id: str, run_id: str, session: Session, *, on_worker_lost: str | None = None) -> None:
    """
    Have a run be ours, from when ``session`` commits until the run ends.

    ``on_worker_lost``, ``"rerun"`` or ``"fail"``, is then the run's own, in place of the worker's setting.
    """
    if not is_managed(dag_id, run_id, session):
        row = {"dag_id": dag_id, "run_id": run_id, "created_at": timezone.utcnow()}
        session.execute(insert(tables.managed_runs).values(**row))
    if on_worker_lost is not None:
        mine = (tables.managed_runs.c.dag_id == dag_id) & (tables.managed_runs.c.run_id == run_id)
        session.execute(update(tables.managed_runs).where(mine).values(on_worker_lost=on_worker_lost))


def on_worker_lost(dag_id: str, run_id: str, session: Session) -> str | None:
    """Return what was chosen for a run whose worker is lost, also before it was cleared; None where nothing was."""
    for table in (tables.managed_runs, tables.workflows):
        found = select(table.c.on_worker_lost).where(table.c.dag_id == dag_id, table.c.run_id == run_id)
        if (chosen := session.scalar(found)) is not None:
            return chosen
    return None


def take_over(dag_id: str, run_id: str, session: Session) -> None:
    """Mark a run as ours and have its workflow started, when ``session`` commits."""
    assign(dag_id, run_id, session)
    outbox.notify(dag_id, run_id, outbox.START, session)


def is_managed(dag_id: str, run_id: str, session: Session) -> bool:
    """Return whether a run is ours."""
    found = select(tables.managed_runs.c.run_id).where(
        tables.managed_runs.c.dag_id == dag_id, tables.managed_runs.c.run_id == run_id
    )
    return session.scalar(found) is not None


def unassign(dag_id: str, run_id: str, session: Session) -> None:
    """Forget a run that has ended, but for what was chosen for it: it may be cleared."""
    if (chosen := on_worker_lost(dag_id, run_id, session)) is not None:
        mine = (tables.workflows.c.dag_id == dag_id) & (tables.workflows.c.run_id == run_id)
        session.execute(update(tables.workflows).where(mine).values(on_worker_lost=chosen))
    session.execute(
        delete(tables.managed_runs).where(
            tables.managed_runs.c.dag_id == dag_id, tables.managed_runs.c.run_id == run_id
        )
    )


def list_unfinished_runs(
    session: Session, among: Collection[tuple[str, str]] | None = None
) -> set[tuple[str, str]]:
    """Return ``(dag_id, run_id)`` of our runs, or of those ``among`` others, that Airflow holds to be running."""
    from airflow.models.dagrun import DagRun

    found = (
        select(DagRun.dag_id, DagRun.run_id)
        .join(
            tables.managed_runs,
            (tables.managed_runs.c.dag_id == DagRun.dag_id) & (tables.managed_runs.c.run_id == DagRun.run_id),
        )
        .where(DagRun.state == "running")
    )
    if among is not None:
        found = found.where(tuple_(DagRun.dag_id, DagRun.run_id).in_(list(among)))
    return {(row.dag_id, row.run_id) for row in session.execute(found)}
