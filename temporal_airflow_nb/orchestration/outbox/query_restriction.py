"""Restrict queries of Airflow's own functions to managed or to unmanaged runs.

The worker process and the processes of a stock Airflow use it: both call the same functions of Airflow's scheduler on
the same database, each for its own runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, event, select
from sqlalchemy.orm import ORMExecuteState, Session

from temporal_airflow_nb.orchestration.outbox.tables import managed_runs

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

Criterion = Callable[[Any], Any]
"""Makes a condition on a mapped class that has ``dag_id`` and ``run_id``."""


@dataclass
class Restriction:
    """A restriction that is active in a block of :func:`restrict_queries`."""

    table: str
    criterion: Criterion
    restricted_queries: int = 0
    """The number of queries that it has applied to."""


# A context variable: each thread and each asyncio task has its own restriction, so that a restriction never reaches a
# query of another transaction in the same process.
_restriction: ContextVar[Restriction | None] = ContextVar("temporal_airflow_restriction", default=None)


def run_is_managed(entity: Any) -> ColumnElement[bool]:
    """Return the condition that Temporal executes the run of ``entity``, a ``DagRun`` or a ``TaskInstance``."""
    is_its_row = and_(managed_runs.c.dag_id == entity.dag_id, managed_runs.c.run_id == entity.run_id)
    return select(managed_runs.c.run_id).where(is_its_row).exists()


def run_is_unmanaged(entity: Any) -> ColumnElement[bool]:
    """Return the condition that a stock scheduler executes the run of ``entity``."""
    return ~run_is_managed(entity)


@contextmanager
def restrict_queries(table: str, criterion: Criterion) -> Iterator[Restriction]:
    """
    Add a condition to the queries in this block that select whole rows of one mapped table.

    Queries on other tables, queries for single columns, and subqueries are left unchanged: with these Airflow counts
    what all runs use.
    """
    restriction = Restriction(table, criterion)
    token = _restriction.set(restriction)
    try:
        yield restriction
    finally:
        _restriction.reset(token)


@event.listens_for(Session, "do_orm_execute")
def _restrict(state: ORMExecuteState) -> None:
    restriction = _restriction.get()
    if restriction is None or not state.is_select or state.is_relationship_load or state.is_column_load:
        return
    # A query for whole rows has one column, which is the mapped class itself.
    columns: list[dict[str, Any]] = state.statement.column_descriptions  # type: ignore[attr-defined]
    if len(columns) != 1 or columns[0]["expr"] is not columns[0]["entity"]:
        return
    # Airflow may select from an alias of the mapped class: the condition has to name the entity of the query.
    entity = columns[0]["entity"]
    if getattr(entity, "__tablename__", None) == restriction.table:
        state.statement = state.statement.where(restriction.criterion(entity))  # type: ignore[attr-defined]
        # `scheduler_filters` checks the count: another version of Airflow may search with a query that passes the
        # conditions above unchanged.
        restriction.restricted_queries += 1
