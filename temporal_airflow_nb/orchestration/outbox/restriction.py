"""Whose a run is: Temporal's, or the stock scheduler's that works on the same database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, event, select
from sqlalchemy.orm import ORMExecuteState, Session

from temporal_airflow_nb.orchestration.outbox.tables import managed_runs

Criterion = Callable[[Any], Any]
"""Makes a condition on a mapped class that has ``dag_id`` and ``run_id``."""


@dataclass
class Restriction:
    """What :func:`restricted` has narrowed so far."""

    table: str
    criterion: Criterion
    narrowed: int = 0


_restriction: ContextVar[Restriction | None] = ContextVar("temporal_airflow_restriction", default=None)


def run_is_managed(entity: Any) -> Any:
    """Return the condition that the run of ``entity``, a ``DagRun`` or a ``TaskInstance``, is Temporal's."""
    mark = and_(managed_runs.c.dag_id == entity.dag_id, managed_runs.c.run_id == entity.run_id)
    return select(managed_runs.c.run_id).where(mark).exists()


def run_is_unmanaged(entity: Any) -> Any:
    """Return the condition that the run of ``entity`` is the stock scheduler's."""
    return ~run_is_managed(entity)


@contextmanager
def restricted(table: str, criterion: Criterion) -> Iterator[Restriction]:
    """
    Narrow the queries in this block that select nothing but rows of a mapped table.

    That is how Airflow's own functions, called in the block, are kept to some of the runs. Their subqueries, which
    count what all runs use, stay as they are.
    """
    restriction = Restriction(table, criterion)
    token = _restriction.set(restriction)
    try:
        yield restriction
    finally:
        _restriction.reset(token)


@event.listens_for(Session, "do_orm_execute")
def _narrow(state: ORMExecuteState) -> None:
    restriction = _restriction.get()
    if restriction is None or not state.is_select or state.is_relationship_load or state.is_column_load:
        return
    columns: list[dict[str, Any]] = state.statement.column_descriptions  # type: ignore[attr-defined]
    if len(columns) != 1 or columns[0]["expr"] is not columns[0]["entity"]:
        return
    entity = columns[0]["entity"]
    if getattr(entity, "__tablename__", None) == restriction.table:
        state.statement = state.statement.where(restriction.criterion(entity))  # type: ignore[attr-defined]
        restriction.narrowed += 1
