"""Reads runs, task instances, XComs and logs from Airflow's database.

Runs in the threads of the gateway's pool. Each function opens a session of its own, which it closes before it returns;
none of them writes.
"""

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
from temporal_airflow_nb.messages.requests import TryRef
from temporal_airflow_nb.messages.runs import Links, RunRow, RunSnapshot, TaskRow
from temporal_airflow_nb.messages.tasks import Log, XCom
from temporal_airflow_nb.orchestration.scheduling.task_graph import get_graph
from temporal_airflow_nb.tasks.dags import dag_of_run
from temporal_airflow_nb.tasks.database import reading

TASK_QUERY = (
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
"""The columns that a :class:`TaskRow` needs; not whole rows, because Airflow's objects are slow to load."""


def version(dag_id: str, run_id: str) -> str:
    """Return a text that changes whenever a run or one of its task instances changes."""
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
    """Return the state of a run; None if there is no such run."""
    with reading() as session:
        state: str | None = session.scalar(
            select(DagRun._state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        )
    return state


def snapshot(dag_id: str, run_id: str, pages: Mapping[str, str]) -> RunSnapshot:
    """Return a run with its task instances, in topological order; ``pages`` are addresses of UIs."""
    # Before the rows: a change in between is then newer than the version, and the caller asks again.
    current = version(dag_id, run_id)
    with reading() as session:
        dag_run = find_run(dag_id, run_id, session)
        dag = dag_of_run(dag_run, session)
        order = get_graph(dag).order if dag is not None else {}
        groups = (
            {task_id: task.task_group for task_id, task in dag.task_dict.items()} if dag is not None else {}
        )
        rows = session.execute(select(*TASK_QUERY).where(TI.dag_id == dag_id, TI.run_id == run_id)).all()
    tasks = [task_row(row, _group_id(groups.get(row.task_id))) for row in rows]
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


def links(dag_id: str, run_id: str, pages: Mapping[str, str]) -> Links:
    """Return the addresses of a run in the available UIs, by the UI's name."""
    return {name: f"{pages[name]}/{path}" for name, path in _paths(dag_id, run_id) if name in pages}


def _paths(dag_id: str, run_id: str) -> Iterator[tuple[str, str]]:
    """Yield the path of a run in each UI, with the UI's name."""
    dag, run, workflow = (quote(text, safe="") for text in (dag_id, run_id, workflow_id(dag_id, run_id)))
    namespace = os.environ.get("TEMPORAL_NAMESPACE") or "default"
    yield "temporal", f"namespaces/{namespace}/workflows/{workflow}"
    yield "airflow", f"dags/{dag}/runs/{run}"


def task_row(row: Any, group: str | None) -> TaskRow:
    """Return a row of :data:`TASK_QUERY` as a task instance of a task group."""
    return {
        "task_id": row.task_id,
        "map_index": row.map_index,
        "state": None if row.state is None else str(row.state),
        "try_number": row.try_number,
        "max_tries": row.max_tries,
        "operator": row.operator,
        "start_date": iso(row.start_date),
        "end_date": iso(row.end_date),
        "duration": row.duration,
        "queued_dttm": iso(row.queued_dttm),
        "pool": row.pool,
        "label": row.label,
        "group": group,
    }


def _group_id(group: Any) -> str | None:
    return group.group_id if group is not None and group.group_id else None


def iso(moment: datetime | None) -> str | None:
    """Return a moment as text, in UTC."""
    return None if moment is None else moment.astimezone(timezone.utc).isoformat()


def runs(dag_id: str | None, limit: int) -> list[RunRow]:
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


def xcoms(dag_id: str, run_id: str) -> list[XCom]:
    """Return a run's XComs, deserialised; values that JSON can't hold are text."""
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
    """Return the value of a stored XCom; text if JSON can't hold it."""
    from airflow.sdk.execution_time.xcom import XCom

    # Deserialising calls code of the user's classes and of XCom backends, which can raise anything. A value whose class
    # this process can't import, for example, is returned as it is stored.
    try:
        value = XCom.deserialize_value(SimpleNamespace(value=stored))
    except Exception:
        value = stored
    return json.loads(json.dumps(value, default=str))


def log(request: TryRef) -> Log:
    """Return the log of a try, or of the latest, as Airflow's UI reads it."""
    with reading() as session:
        dag_run = find_run(request.dag_id, request.run_id, session)
        one = find_try(dag_run, request.task_id, request.map_index, request.try_number, session)
        return {"try_number": one.number, "lines": log_reader.records(one.row, one.number)}
