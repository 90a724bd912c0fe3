"""What the gateway reads from Airflow's database for a notebook or a terminal."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance as TI
from airflow.models.xcom import XComModel
from sqlalchemy import func, select

from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.gateway import log_reader
from temporal_airflow_nb.gateway.lookup import find_run, find_try
from temporal_airflow_nb.orchestration.scheduling.task_graph import get_graph
from temporal_airflow_nb.tasks.dags import dag_of_run
from temporal_airflow_nb.tasks.database import reading

TASK_COLUMNS = (
    TI.task_id,
    TI.map_index,
    TI.state,
    TI.try_number,
    TI.max_tries,
    func.coalesce(func.nullif(TI.custom_operator_name, ""), TI.operator).label("operator"),
    TI.start_date,
    TI.end_date,
    TI.duration,
    TI.queued_dttm,
    TI.pool,
    TI._rendered_map_index.label("label"),
)


def version(dag_id: str, run_id: str) -> str:
    """Return a text that changes whenever the run or one of its task instances does."""
    with reading() as session:
        run = session.execute(
            select(DagRun._state, DagRun.updated_at, DagRun.clear_number).where(
                DagRun.dag_id == dag_id, DagRun.run_id == run_id
            )
        ).one_or_none()
        tasks = session.execute(
            select(func.max(TI.updated_at), func.count()).where(TI.dag_id == dag_id, TI.run_id == run_id)
        ).one()
    return hashlib.sha1(repr((run, tasks)).encode(), usedforsecurity=False).hexdigest()[:16]


def run_state(dag_id: str, run_id: str) -> str | None:
    """Return the state of a run, or None where there is none."""
    with reading() as session:
        return session.scalar(select(DagRun._state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))


def snapshot(dag_id: str, run_id: str, pages: Mapping[str, str]) -> dict[str, Any]:
    """Return a run with all its task instances, in the order in which they can run; ``pages`` are addresses of UIs."""
    current = version(dag_id, run_id)
    with reading() as session:
        dag_run = find_run(dag_id, run_id, session)
        dag = dag_of_run(dag_run, session)
        order = get_graph(dag).order if dag is not None else {}
        groups = (
            {task_id: task.task_group for task_id, task in dag.task_dict.items()} if dag is not None else {}
        )
        rows = session.execute(select(*TASK_COLUMNS).where(TI.dag_id == dag_id, TI.run_id == run_id)).all()
    tasks = [_task(row, groups.get(row.task_id)) for row in rows]
    tasks.sort(key=lambda task: (order.get(task["task_id"], len(order)), task["map_index"]))
    return {
        "dag_id": dag_id,
        "run_id": run_id,
        "workflow_id": workflow_id(dag_id, run_id),
        "state": str(dag_run._state),
        "start_date": iso(dag_run.start_date),
        "end_date": iso(dag_run.end_date),
        "version": current,
        "airflow_state_counts": dict(Counter(task["state"] or "none" for task in tasks)),
        "tasks": tasks,
        "links": links(dag_id, run_id, pages),
    }


def links(dag_id: str, run_id: str, pages: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses of a run, by the names of the UIs that there are."""
    return {name: f"{pages[name]}/{path}" for name, path in _paths(dag_id, run_id) if name in pages}


def _paths(dag_id: str, run_id: str) -> Iterator[tuple[str, str]]:
    """Yield where a run is in each UI."""
    dag, run, workflow = (quote(text, safe="") for text in (dag_id, run_id, workflow_id(dag_id, run_id)))
    namespace = os.environ.get("TEMPORAL_NAMESPACE") or "default"
    yield "temporal", f"namespaces/{namespace}/workflows/{workflow}"
    yield "airflow", f"dags/{dag}/runs/{run}"


def _task(row: Any, group: Any) -> dict[str, Any]:
    task = dict(row._mapping)
    for column in ("start_date", "end_date", "queued_dttm"):
        task[column] = iso(task[column])
    task["state"] = None if row.state is None else str(row.state)
    task["group"] = group.group_id if group is not None and group.group_id else None
    return task


def iso(moment: datetime | None) -> str | None:
    """Return a moment as text, in UTC."""
    return None if moment is None else moment.astimezone(timezone.utc).isoformat()


def runs(dag_id: str | None, limit: int) -> list[dict[str, Any]]:
    """Return the latest runs, newest first."""
    query = select(DagRun).order_by(DagRun.id.desc()).limit(limit)
    if dag_id is not None:
        query = query.where(DagRun.dag_id == dag_id)
    with reading() as session:
        return [
            {
                "dag_id": run.dag_id,
                "run_id": run.run_id,
                "workflow_id": workflow_id(run.dag_id, run.run_id),
                "state": str(run._state),
                "run_type": str(run.run_type),
                "start_date": iso(run.start_date),
                "end_date": iso(run.end_date),
            }
            for run in session.scalars(query)
        ]


def xcoms(dag_id: str, run_id: str) -> list[dict[str, Any]]:
    """Return a run's XComs, deserialised; what JSON can't hold is given as text."""
    with reading() as session:
        find_run(dag_id, run_id, session)
        rows = session.execute(
            select(
                XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value, XComModel.timestamp
            )
            .where(XComModel.dag_id == dag_id, XComModel.run_id == run_id)
            .order_by(XComModel.timestamp, XComModel.task_id, XComModel.map_index, XComModel.key)
        ).all()
    return [
        {
            "task_id": row.task_id,
            "map_index": row.map_index,
            "key": row.key,
            "value": xcom_value(row.value),
            "timestamp": iso(row.timestamp),
        }
        for row in rows
    ]


def xcom_value(stored: Any) -> Any:
    """Return a stored XCom's value; what JSON can't hold as text."""
    from airflow.sdk.execution_time.xcom import XCom

    try:
        value = XCom.deserialize_value(SimpleNamespace(value=stored))
    except Exception:
        value = stored
    return json.loads(json.dumps(value, default=str))


def logs(dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int | None) -> dict[str, Any]:
    """Return the log of one try of one task, as Airflow's UI reads it."""
    with reading() as session:
        dag_run = find_run(dag_id, run_id, session)
        one = find_try(dag_run, task_id, map_index, try_number, session)
        return {"try_number": one.number, "lines": log_reader.records(one.row, one.number)}
