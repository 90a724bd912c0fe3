"""Reads serialized DAGs from the database, cached by version for the whole worker process."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from airflow.models.dagbag import DBDagBag

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session


@lru_cache(maxsize=1)
def dag_bag() -> DBDagBag:
    """Return the worker's bag of serialized DAGs."""
    return DBDagBag()


def dag_of_run(dag_run: DagRun, session: Session) -> SerializedDAG | None:
    """Return the DAG in the version that the run uses now; None if it isn't in the database."""
    return dag_bag().get_dag_for_run(dag_run=dag_run, session=session)
