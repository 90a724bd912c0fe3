"""The serialized DAGs of a worker, cached by version."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from sqlalchemy import select

from temporal_airflow_nb.tasks.database import reading

if TYPE_CHECKING:
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session


@lru_cache(maxsize=1)
def dag_bag() -> DBDagBag:
    """Return the worker's bag of serialized DAGs."""
    return DBDagBag()


def dag_of_run(dag_run: DagRun, session: Session) -> SerializedDAG | None:
    """Return the DAG, in the version that a run uses now."""
    return dag_bag().get_dag_for_run(dag_run=dag_run, session=session)


def serialized_task(dag_id: str, run_id: str, task_id: str) -> Any:
    """Return the serialized task, or None where the DAG or the task is gone."""
    with reading() as session:
        dag_run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        dag = dag_of_run(dag_run, session) if dag_run is not None else None
        return dag.task_dict.get(task_id) if dag is not None else None
