"""Taking turns with other workers and schedulers on the same database."""

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
    """What only one may do at a time: the id of an advisory lock."""

    SLOTS = int(DBLocks.SCHEDULER_CRITICAL_SECTION)
    """Hand out slots. It is the lock of Airflow's critical section."""
    START_RUNS = 0x74656D706F72
    """Start queued runs, so that ``max_active_runs`` holds."""
    TABLES = 0x74656D7074626C
    """Create our tables."""


def acquire(session: Session | Connection, lock: DatabaseLock) -> None:
    """
    Have something to oneself until the transaction ends; wait for whoever has it now.

    On SQLite a transaction has the database to itself.
    """
    connection = session.connection() if isinstance(session, Session) else session
    begin_writing(connection)
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)").bindparams(id=int(lock)))
