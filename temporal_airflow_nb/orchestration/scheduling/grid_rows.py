"""The grid of a run as the workflow remembers it, read from Airflow's database.

Activities call it inside their transactions. What it returns enters Temporal's history: ids, states and times alone. A
label of a mapped task, a display name or a documentation may contain anything, and stays in the database. Every
function keeps to a size limit and leaves out what is least needed first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.models.dag_version import DagVersion
from airflow.models.taskinstance import TaskInstance as TI
from airflow.models.taskinstancehistory import TaskInstanceHistory as TIH
from sqlalchemy import and_, func, select

from temporal_airflow_nb.orchestration.scheduling.dag_structure import get_structure
from temporal_airflow_nb.orchestration.scheduling.task_graph import get_graph
from temporal_airflow_nb.orchestration.workflow.grid_encoding import pack_within
from temporal_airflow_nb.orchestration.workflow.models import MAX_PAYLOAD, Key

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

    from temporal_airflow_nb.messages.grid import Node

COLUMNS = (
    TI.task_id,
    TI.map_index,
    TI.state,
    TI.try_number,
    func.coalesce(func.nullif(TI.custom_operator_name, ""), TI.operator).label("operator"),
    TI.queue,
    TI.max_tries,
    TI.queued_dttm,
    TI.start_date,
    TI.end_date,
)
# Limits in characters of JSON or of packed text. Each payload of a workflow has to stay below `MAX_PAYLOAD`, and the
# structure, the former tries and other values share one.
_MAX_STRUCTURE_SIZE = 300_000
_MAX_FORMER_SIZE = 300_000
_MAX_SIZE_WITH_TIMES = 1_000_000
# So few rows are below `_MAX_SIZE_WITH_TIMES` without measuring them.
_SMALL_ROW_COUNT = 5_000
# Above this number of tasks, the former tries of the whole run are read, rather than those of the named tasks.
_MAX_NAMED_TASKS = 500
# `[task_id, map_index, state, try_number]`: the elements that every row has.
_SHORT_ROW = 4


def encode_row(row: Any) -> list[Any]:
    """Return a task instance as a row of the workflow's ``GridMemory``."""
    encoded = [
        row.task_id,
        row.map_index,
        None if row.state is None else str(row.state),
        row.try_number,
        row.max_tries,
        *map(_seconds, (row.queued_dttm, row.start_date, row.end_date)),
    ]
    while encoded[-1] is None and len(encoded) > _SHORT_ROW:
        encoded.pop()
    return encoded


def drop_times_if_large(rows: list[list[Any]]) -> list[list[Any]]:
    """Return the rows, without their times if these make them too large for the result of a pass."""
    if len(rows) <= _SMALL_ROW_COUNT or len(json.dumps(rows)) <= _MAX_SIZE_WITH_TIMES:
        return rows
    return [row[:_SHORT_ROW] for row in rows]


def pack_changed_rows(dag_run: DagRun, known: Iterable[Any], session: Session) -> str:
    """Return, packed, the rows that differ from those that the workflow knows; empty if too large."""
    states = {(task_id, map_index): (state, tries) for task_id, map_index, state, tries in known}
    query = select(*COLUMNS).where(TI.dag_id == dag_run.dag_id, TI.run_id == dag_run.run_id)
    rows = [
        encode_row(row)
        for row in session.execute(query)
        if states.get((row.task_id, row.map_index)) != (row.state, row.try_number)
    ]
    if not rows:
        return ""
    short = [row[:_SHORT_ROW] for row in rows]
    return pack_within(rows, MAX_PAYLOAD) or pack_within(short, MAX_PAYLOAD) or ""


def pack_former_tries(dag_run: DagRun, session: Session) -> str | None:
    """Return the ended tries of a run, packed; None if there are none, or too many."""
    of_run = and_(TI.dag_id == dag_run.dag_id, TI.run_id == dag_run.run_id)
    tried = session.scalars(select(TI.task_id).where(of_run, TI.try_number > 0).distinct()).all()
    if not tried:
        return None
    query = select(
        TIH.task_id, TIH.map_index, TIH.try_number, TIH.state, TIH.queued_dttm, TIH.start_date, TIH.end_date
    ).where(TIH.dag_id == dag_run.dag_id, TIH.run_id == dag_run.run_id, TIH.try_number > 0)
    if len(tried) <= _MAX_NAMED_TASKS:
        query = query.where(TIH.task_id.in_(tried))
    former: dict[Key, list[Any]] = {}
    for task_id, map_index, number, state, *times in session.execute(query.order_by(TIH.try_number)):
        former.setdefault((task_id, map_index), []).append([number, state, *map(_seconds, times)])
    return pack_within([[*key, tries] for key, tries in former.items()], _MAX_FORMER_SIZE) if former else None


def pack_structure(dag: SerializedDAG) -> str | None:
    """
    Return a DAG's structure without documentation and display names, packed; None if it is too large.

    It has an additional list ``order``: the positions of the tasks among the nodes, in topological order.
    """
    # Kept on the DAG object, as its structure is; None is a result, and "" means that it isn't built yet.
    text: str | None = getattr(dag, "_temporal_airflow_packed", "")
    if text == "":
        structure = get_structure(dag)
        nodes = [{**node, "label": _own_name(node), "doc": None} for node in structure["nodes"]]
        positions = {node["id"]: position for position, node in enumerate(nodes) if node["kind"] == "task"}
        order = [positions[task_id] for task_id in get_graph(dag).order]
        text = pack_within({**structure, "nodes": nodes, "order": order}, _MAX_STRUCTURE_SIZE)
        dag._temporal_airflow_packed = text
    return text


def _own_name(node: Node) -> str:
    """Return a node's id without that of its group."""
    return node["id"].removeprefix(f"{node['parent']}.") if node["parent"] else node["id"]


def run_facts(dag_run: DagRun, session: Session) -> dict[str, str | float | None]:
    """Return the type, times and DAG version of a run; times in seconds since the epoch."""
    created_by = DagVersion.id == dag_run.created_dag_version_id
    of_dag = DagVersion.dag_id == dag_run.dag_id
    own, newest = session.execute(
        select(
            select(DagVersion.version_number).where(created_by).scalar_subquery(),
            select(func.max(DagVersion.version_number)).where(of_dag).scalar_subquery(),
        )
    ).one()
    return {
        "run_type": str(getattr(dag_run.run_type, "value", dag_run.run_type)),
        "version": own,
        # A run that isn't tied to a version of its bundle uses the DAG as it is now.
        "structure_version": own if dag_run.bundle_version and own else newest,
        "logical_date": _seconds(dag_run.logical_date),
        "run_after": _seconds(dag_run.run_after),
        "queued_at": _seconds(dag_run.queued_at),
        **run_times(dag_run),
    }


def run_times(dag_run: DagRun) -> dict[str, float | None]:
    """Return the start and the end of a run, in seconds since the epoch."""
    return {"start_date": _seconds(dag_run.start_date), "end_date": _seconds(dag_run.end_date)}


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
