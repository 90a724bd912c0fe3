"""The tables of this package in Airflow's database.

They have no foreign keys, so that ``airflow db clean`` leaves them alone. They have no migrations either: tables and
nullable columns are only ever added, so that an older version of this package still works with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.utils.sqlalchemy import UtcDateTime
from sqlalchemy import Column, Integer, MetaData, PrimaryKeyConstraint, String, Table, inspect, text

from temporal_airflow_nb.errors import InvalidInputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

metadata = MetaData()

managed_runs = Table(
    "temporal_airflow_run",
    metadata,
    Column("dag_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("on_worker_lost", String(10), nullable=True),
    PrimaryKeyConstraint("dag_id", "run_id"),
)

outbox = Table(
    "temporal_airflow_outbox",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("dag_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("task_id", String(250), nullable=True),
    Column("claimed_until", UtcDateTime, nullable=True),
)

workers = Table(
    "temporal_airflow_worker",
    metadata,
    Column("identity", String(250), primary_key=True),
    Column("hostname", String(250), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("address", String(250), nullable=False),
    Column("namespace", String(250), nullable=False),
    Column("task_queues", String(500), nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("error", String(500), nullable=True),
    Column("error_since", UtcDateTime, nullable=True),
)

workflows = Table(
    "temporal_airflow_workflow",
    metadata,
    Column("dag_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("workflow_id", String(520), nullable=False),
    Column("temporal_run_id", String(250), nullable=False),
    Column("namespace", String(250), nullable=False),
    Column("task_queue", String(250), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=True),
    Column("state", String(50), nullable=True),
    Column("on_worker_lost", String(10), nullable=True),
    PrimaryKeyConstraint("dag_id", "run_id"),
)

schedules = Table(
    "temporal_airflow_schedule",
    metadata,
    Column("dag_id", String(250), primary_key=True),
    Column("schedule_id", String(500), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("reason", String(500), nullable=True),
    Column("checked_at", UtcDateTime, nullable=False),
)


def create_tables(connection: Connection) -> None:
    """Create the tables and columns that are missing, in the transaction of ``connection``."""
    from temporal_airflow_nb.orchestration.outbox.locks import DatabaseLock, acquire

    # Workers and `airflow db migrate` may do this at the same time: with the lock, each sees what the others created.
    # It also begins a transaction on SQLite, whose Python driver begins none before DDL.
    acquire(connection, DatabaseLock.CREATE_TABLES)
    metadata.create_all(connection)
    for column in missing_columns(connection):
        kind = column.type.compile(connection.dialect)
        connection.execute(text(f"ALTER TABLE {column.table.name} ADD COLUMN {column.name} {kind}"))


def missing_columns(connection: Connection) -> list[Column[Any]]:
    """Return the columns of this package's tables that the database lacks."""
    database = inspect(connection)
    existing = set(database.get_table_names())
    missing: list[Column[Any]] = []
    for table in metadata.sorted_tables:
        known = {c["name"] for c in database.get_columns(table.name)} if table.name in existing else set()
        missing += [column for column in table.columns if column.name not in known]
    return missing


def missing_tables() -> InvalidInputError:
    """Return the error for an Airflow whose database lacks the tables of this package."""
    return InvalidInputError(
        "Airflow's database doesn't have the tables of temporal-airflow-nb.",
        hint="Create them with `airflow db migrate`.",
    )
