"""The workflow that executes each run, for the links in Airflow's UI.

Activities write it in transactions that have locked the run's row in Airflow's table. It is kept until the run is
deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow._shared.timezones import timezone
from sqlalchemy import and_, delete, exists, insert, select, update

from temporal_airflow_nb.orchestration.outbox.tables import workflows

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.orm import Session
    from temporalio.activity import Info


def record_start(dag_id: str, run_id: str, execution: Info, session: Session) -> None:
    """Record that a workflow has started to execute a run, or continues it as new."""
    where = _is_row_of(dag_id, run_id)
    known = session.execute(select(workflows).where(where)).one_or_none()
    values = {
        "workflow_id": execution.workflow_id,
        "temporal_run_id": execution.workflow_run_id,
        "namespace": execution.namespace,
        "task_queue": execution.task_queue,
        # A workflow that continues as new keeps its start.
        "started_at": known.started_at if known and known.ended_at is None else timezone.utcnow(),
        "ended_at": None,
        "state": None,
    }
    if known is None:
        session.execute(insert(workflows).values(dag_id=dag_id, run_id=run_id, **values))
    elif known.ended_at is not None or known.temporal_run_id != execution.workflow_run_id:
        session.execute(update(workflows).where(where).values(**values))


def record_end(dag_id: str, run_id: str, state: str, session: Session) -> None:
    """Record that a run has ended."""
    where = and_(_is_row_of(dag_id, run_id), workflows.c.ended_at.is_(None))
    session.execute(update(workflows).where(where).values(ended_at=timezone.utcnow(), state=state))


def get_record(dag_id: str, run_id: str, session: Session) -> Row[Any] | None:
    """Return the row of a run that Temporal executes or has executed."""
    return session.execute(select(workflows).where(_is_row_of(dag_id, run_id))).one_or_none()


def delete_orphaned(session: Session) -> None:
    """Delete the rows of runs that aren't in the database any more."""
    from airflow.models.dagrun import DagRun

    run = exists().where(DagRun.dag_id == workflows.c.dag_id, DagRun.run_id == workflows.c.run_id)
    session.execute(delete(workflows).where(~run))


def _is_row_of(dag_id: str, run_id: str) -> ColumnElement[bool]:
    return and_(workflows.c.dag_id == dag_id, workflows.c.run_id == run_id)
