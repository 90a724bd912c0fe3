"""The gateway's tables, column by column, from which a notebook makes data frames.

Runs in the threads of the gateway's pool, with one session for each table; only the table of events is made by a
coroutine in the gateway's event loop, because it comes from Temporal. A run may have 100,000 task instances: rows are
read without making Airflow's objects, and the database formats times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.models.asset import AssetEvent, AssetModel, association_table
from airflow.models.dag import DagModel, DagTag
from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun, DagRunNote
from airflow.models.pool import Pool
from airflow.models.taskinstance import TaskInstance as TI
from airflow.models.taskinstancehistory import TaskInstanceHistory as TIH
from fastapi import FastAPI, Response
from sqlalchemy import String, cast, exists, func, literal, select, union_all
from sqlalchemy.orm import Session
from temporalio.client import Client

from temporal_airflow_nb.client.rows import check_run_state
from temporal_airflow_nb.client.temporal.history import History
from temporal_airflow_nb.gateway.lookup import check_dag, find_run
from temporal_airflow_nb.gateway.routing import encoded, operation
from temporal_airflow_nb.messages.requests import GetRunsTable, RunRef
from temporal_airflow_nb.messages.tables import Table
from temporal_airflow_nb.orchestration.scheduling.task_graph import get_graph
from temporal_airflow_nb.tasks.dags import dag_of_run
from temporal_airflow_nb.tasks.database import reading

Columns = dict[str, list[Any]]


def add_routes(app: FastAPI, temporal: Client | None) -> None:
    """Add the operations; without the worker's client of Temporal, one is made when it is needed."""
    history = History(temporal, _check_run)

    @operation(app, "get_tasks_table")
    def get_tasks_table(request: RunRef) -> Response:
        return _answer(tasks(request.dag_id, request.run_id))

    @operation(app, "get_tries_table")
    def get_tries_table(request: RunRef) -> Response:
        return _answer(tries(request.dag_id, request.run_id))

    @operation(app, "get_assets_table")
    def get_assets_table(request: RunRef) -> Response:
        return _answer(assets(request.dag_id, request.run_id))

    @operation(app, "get_events_table")
    async def get_events_table(request: RunRef) -> Response:
        return encoded(await history.events(request.dag_id, request.run_id))

    @operation(app, "get_runs_table")
    def get_runs_table(request: GetRunsTable) -> Response:
        return _answer(runs(request.dag_id, request.state, request.limit))

    @operation(app, "get_dags_table")
    def get_dags_table() -> Response:
        return _answer(dags())

    @operation(app, "get_pools_table")
    def get_pools_table() -> Response:
        return _answer(pools())


def _check_run(dag_id: str, run_id: str) -> None:
    with reading() as session:
        find_run(dag_id, run_id, session)


def _answer(columns: Columns) -> Response:
    table: Table = {"columns": columns, "rows": len(next(iter(columns.values())))}
    return encoded(table)


def tasks(dag_id: str, run_id: str) -> Columns:
    """Return a run's task instances, in the order in which they can run."""
    with reading() as session:
        order, groups = _places(dag_id, run_id, session)
        query = select(
            TI.task_id,
            TI.map_index,
            TI.state,
            TI.try_number,
            TI.max_tries,
            _operator(TI),
            _text(TI.start_date, session),
            _text(TI.end_date, session),
            TI.duration,
            _text(TI.queued_dttm, session),
            TI.pool,
            TI._rendered_map_index.label("label"),
        ).where(TI.dag_id == dag_id, TI.run_id == run_id)
        columns = _many(session, query, order)
    columns["group"] = [groups.get(task_id) for task_id in columns["task_id"]]
    return columns


def tries(dag_id: str, run_id: str) -> Columns:
    """Return every try of a run's task instances, including tries before they were cleared."""

    def of(model: Any, session: Session) -> Any:
        return select(
            model.task_id,
            model.map_index,
            model.try_number,
            model.state,
            _operator(model),
            _text(model.queued_dttm, session),
            _text(model.start_date, session),
            _text(model.end_date, session),
            model.duration,
            model.hostname,
            model.pool,
            model.queue,
        ).where(model.dag_id == dag_id, model.run_id == run_id)

    # A try that the history has stays in the row of the task instance until the next try begins.
    recorded = exists().where(
        TIH.dag_id == TI.dag_id,
        TIH.run_id == TI.run_id,
        TIH.task_id == TI.task_id,
        TIH.map_index == TI.map_index,
        TIH.try_number == TI.try_number,
    )
    with reading() as session:
        order, _ = _places(dag_id, run_id, session)
        latest = of(TI, session).where(TI.try_number > 0, ~recorded)
        return _many(session, union_all(of(TIH, session), latest).order_by("try_number"), order)


def assets(dag_id: str, run_id: str) -> Columns:
    """Return the asset events that created a run, and those that its tasks produced."""
    with reading() as session:
        dag_run = find_run(dag_id, run_id, session)

        def events(direction: str) -> Any:
            return select(
                literal(direction).label("direction"),
                AssetModel.name.label("asset"),
                AssetModel.uri,
                AssetModel.group,
                _text(AssetEvent.timestamp, session),
                AssetEvent.source_task_id.label("task_id"),
                AssetEvent.source_map_index.label("map_index"),
                AssetEvent.source_dag_id,
                AssetEvent.source_run_id,
                AssetEvent.extra,
                AssetEvent.partition_key,
                AssetEvent.id,
            ).join(AssetModel, AssetModel.id == AssetEvent.asset_id)

        consumed = events("consumed").join(association_table, association_table.c.event_id == AssetEvent.id)
        produced = events("produced").where(
            AssetEvent.source_dag_id == dag_id, AssetEvent.source_run_id == run_id
        )
        rows = [
            *session.execute(consumed.where(association_table.c.dag_run_id == dag_run.id).order_by("id")),
            *session.execute(produced.order_by("id")),
        ]
    names = [column.name for column in produced.selected_columns]
    columns = _by_column(names, rows)
    del columns["id"]
    return columns


def runs(dag_id: str | None, state: str | None, limit: int | None) -> Columns:
    """Return runs, newest first."""
    check_run_state(state)
    with reading() as session:
        query = (
            select(
                DagRun.dag_id,
                DagRun.run_id,
                DagRun._state.label("state"),
                DagRun.run_type,
                _text(DagRun.logical_date, session),
                _text(DagRun.run_after, session),
                _text(DagRun.queued_at, session),
                _text(DagRun.start_date, session),
                _text(DagRun.end_date, session),
                DagVersion.version_number.label("version"),
                DagRunNote.content.label("note"),
            )
            .outerjoin(DagVersion, DagVersion.id == DagRun.created_dag_version_id)
            .outerjoin(DagRunNote, DagRunNote.dag_run_id == DagRun.id)
            .order_by(DagRun.id.desc())
            .limit(limit)
        )
        if dag_id is not None:
            check_dag(dag_id, session)
            query = query.where(DagRun.dag_id == dag_id)
        if state is not None:
            query = query.where(DagRun._state == state)
        return _columns(session, query)


def dags() -> Columns:
    """Return the DAGs that Airflow knows, except stale ones, by id."""
    latest = select(func.max(DagRun.id)).group_by(DagRun.dag_id)
    versions = (
        select(DagVersion.dag_id, func.max(DagVersion.version_number).label("version"))
        .group_by(DagVersion.dag_id)
        .subquery()
    )
    with reading() as session:
        query = (
            select(
                DagModel.dag_id,
                DagModel.is_paused,
                # Airflow stores the word for a DAG without a schedule.
                func.nullif(DagModel.timetable_summary, "None").label("schedule"),
                _text(DagModel.next_dagrun_create_after, session).label("next_run"),
                DagModel.owners,
                func.coalesce(DagModel.relative_fileloc, DagModel.fileloc).label("file"),
                DagModel.bundle_name.label("bundle"),
                versions.c.version,
                DagModel.description,
                DagModel.has_import_errors,
                DagRun.run_id.label("last_run_id"),
                DagRun._state.label("last_run_state"),
                _text(DagRun.start_date, session).label("last_run_start"),
            )
            .outerjoin(versions, versions.c.dag_id == DagModel.dag_id)
            .outerjoin(DagRun, (DagRun.dag_id == DagModel.dag_id) & DagRun.id.in_(latest))
            .where(~DagModel.is_stale)
            .order_by(DagModel.dag_id)
        )
        columns = _columns(session, query)
        tags: dict[str, list[str]] = {}
        for dag_id, name in session.execute(select(DagTag.dag_id, DagTag.name).order_by(DagTag.name)):
            tags.setdefault(dag_id, []).append(name)
    columns["tags"] = [tags.get(dag_id, []) for dag_id in columns["dag_id"]]
    return columns


def pools() -> Columns:
    """Return the pools and how their slots are used, by Airflow's own count."""
    with reading() as session:
        stats = Pool.slots_stats(session=session)
        columns = _columns(
            session,
            select(Pool.pool, Pool.slots, Pool.include_deferred, Pool.description).order_by(Pool.pool),
        )
    used = [stats[name] for name in columns["pool"]]
    for name in ("running", "queued", "scheduled", "deferred", "open"):
        # Airflow counts the open slots of a pool without limit as infinite, which JSON can't hold.
        columns[name] = [None if of[name] == float("inf") else of[name] for of in used]
    return columns


def _places(dag_id: str, run_id: str, session: Session) -> tuple[Mapping[str, int], Mapping[str, str | None]]:
    """Return each task's place in topological order and its group; empty if the DAG isn't stored."""
    dag = dag_of_run(find_run(dag_id, run_id, session), session)
    if dag is None:
        return {}, {}
    groups = {task_id: task.task_group for task_id, task in dag.task_dict.items()}
    return get_graph(dag).order, {id_: group and (group.group_id or None) for id_, group in groups.items()}


def _operator(model: Any) -> Any:
    return func.coalesce(func.nullif(model.custom_operator_name, ""), model.operator).label("operator")


def _text(column: Any, session: Session) -> Any:
    """Return an expression with which the database formats a column of times as ISO 8601 in UTC."""
    if session.get_bind().dialect.name == "postgresql":
        text: Any = func.to_char(func.timezone("UTC", column), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    else:
        # Airflow stores UTC without a time zone.
        text = func.replace(cast(column, String), " ", "T") + "Z"
    return text.label(column.key)


def _columns(session: Session, query: Any) -> Columns:
    result = session.execute(query)
    return _by_column(list(result.keys()), result.all())


def _many(session: Session, query: Any, order: Mapping[str, int]) -> Columns:
    """Return the columns of a query, its rows in topological order."""
    # The driver's cursor, because SQLAlchemy would make an object for each row. The first two columns are the task
    # id and the map index. The sort is stable: tries of a task instance stay in the order of the query.
    result = session.connection().execute(query)
    last = len(order)
    rows = sorted(result.cursor.fetchall(), key=lambda row: (order.get(row[0], last), row[1]))
    return _by_column(list(result.keys()), rows)


def _by_column(names: Sequence[str], rows: Sequence[Any]) -> Columns:
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}
