"""Finds what a user has named in Airflow's database, or says what there is instead."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from sqlalchemy import select
from sqlalchemy.orm import Session

from temporal_airflow_nb.errors import DagNotFoundError, RunNotFoundError

_SHOWN = 5


def check_dag(dag_id: str, session: Session) -> None:
    """Refuse a DAG that Airflow doesn't know."""
    if session.get(DagModel, dag_id) is None:
        known = session.scalars(select(DagModel.dag_id)).all()
        raise DagNotFoundError(f"There is no DAG {dag_id!r}.", hint=similar(dag_id, known), dag_id=dag_id)


def find_run(dag_id: str, run_id: str | None, session: Session) -> DagRun:
    """Return a run of a DAG, the latest one where ``run_id`` is None."""
    check_dag(dag_id, session)
    runs = select(DagRun).where(DagRun.dag_id == dag_id).order_by(DagRun.id.desc())
    found = session.scalar(runs.limit(1) if run_id is None else runs.where(DagRun.run_id == run_id))
    if found is not None:
        return found
    if run_id is None:
        raise RunNotFoundError(f"DAG {dag_id!r} has no run.", hint="Run it first.", dag_id=dag_id)
    known = [run.run_id for run in session.scalars(runs.limit(_SHOWN))]
    raise RunNotFoundError(
        f"DAG {dag_id!r} has no run {run_id!r}.",
        hint=f"Its latest are: {', '.join(known)}." if known else "It has none.",
        dag_id=dag_id,
        run_id=run_id,
    )


def similar(name: str, known: Iterable[str]) -> str:
    """Return which of the known names may have been meant, as a sentence."""
    known = sorted(known)
    if close := get_close_matches(name, known):
        return f"Did you mean {' or '.join(close)}?"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"There are: {', '.join(known[:_SHOWN])}{more}." if known else "There is none."
