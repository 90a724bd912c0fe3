"""Locks that workers and Airflow's schedulers on the same database share."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from airflow.utils.db import DBLocks
from sqlalchemy import text
from sqlalchemy.orm import Session

from temporal_airflow_nb.tasks.database import begin_writing

if TYPE_CHECKING:
    from sqlalchemy import Connection


class DatabaseLock(IntEnum):
    """Work that one transaction at a time may do; the value is the id of a PostgreSQL advisory lock."""

    # Airflow's `_executable_task_instances_to_queued` tries this lock and raises OperationalError if another
    # transaction has it. PostgreSQL grants it again to the session that holds it: a caller that has acquired it here
    # waits for its turn, and Airflow's try then always succeeds.
    ASSIGN_SLOTS = int(DBLocks.SCHEDULER_CRITICAL_SECTION)
    """Move tasks to QUEUED. It is the lock of Airflow's critical section."""
    # The ids of this package spell ASCII texts, so that another application that uses advisory locks in this database
    # is unlikely to choose the same.
    #
    # Airflow counts running runs and starts queued ones without a lock of its own. Two processes that do so at once
    # would both count before either commits, and start more runs than `max_active_runs`.
    START_RUNS = 0x74656D706F72
    """Move queued runs to running."""
    CREATE_TABLES = 0x74656D7074626C
    """Create the tables of this package."""


def acquire(session: Session | Connection, lock: DatabaseLock) -> None:
    """
    Wait for a lock, and keep it until the transaction of ``session`` ends.

    On SQLite it is the write lock of the whole database, whichever ``lock`` is asked for.
    """
    # A transaction acquires at most one of these locks. A scheduling pass locks the row of its run first, then
    # acquires ASSIGN_SLOTS; Airflow's critical section locks the rows of pools last, after ASSIGN_SLOTS.
    connection = session.connection() if isinstance(session, Session) else session
    begin_writing(connection)
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)").bindparams(id=int(lock)))
