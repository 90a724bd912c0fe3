"""Transactions on Airflow's metadata database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, text
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

# SQLite has one writer. Threads of this process queue here, in order, rather than in SQLite's busy handler,
# which sleeps up to 100 ms at a time.
_sqlite_writer = threading.RLock()

_commits = 0
_AFTER_COMMIT = "temporal_airflow_nb.after_commit"


def commit_count() -> int:
    """Return how many transactions this process has committed: a cheap sign that something may have changed."""
    return _commits


def speed_up_sqlite(engine: Engine) -> None:
    """
    Leave out the flush to disk at each commit, which WAL doesn't need to stay consistent.

    A killed process loses nothing; a power failure may lose the last transactions.
    """

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")


def begin_writing(connection: Connection) -> None:
    """
    On SQLite, begin the connection's transaction with the write lock, unless it has begun.

    One that has only read could not write any more once another process has written: "database is locked", at once.
    """
    if connection.dialect.name != "sqlite":
        return
    if not getattr(connection.connection.dbapi_connection, "in_transaction", True):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def transaction(*, shared: bool = False) -> Iterator[Session]:
    """
    Yield a session whose work is committed at the end, or rolled back on an exception.

    ``shared`` yields the one that Airflow's code in this thread gets where it asks for a session of its own.

    On SQLite the write lock is taken at once, so that what is read here can't change before it is written:
    the guarantee that ``SELECT … FOR UPDATE`` gives on PostgreSQL.
    """
    global _commits
    from airflow import settings

    session = settings.Session() if shared else settings.NonScopedSession()
    sqlite = session.get_bind().dialect.name == "sqlite"
    if sqlite:
        _sqlite_writer.acquire()
    try:
        if sqlite:
            session.execute(text("BEGIN IMMEDIATE"))
        yield session
        session.commit()
        _commits += 1
    except BaseException:
        session.rollback()
        raise
    finally:
        session.close()
        if sqlite:
            _sqlite_writer.release()


@contextmanager
def block_other_writers() -> Iterator[None]:
    """Have this process's other threads wait with their transactions, while Airflow's code opens its own."""
    from airflow import settings

    assert settings.engine is not None
    if settings.engine.dialect.name != "sqlite":
        yield
        return
    with _sqlite_writer:
        yield


@contextmanager
def reading() -> Iterator[Session]:
    """Yield a session for queries alone; nothing is committed."""
    from airflow import settings

    session = settings.NonScopedSession()
    try:
        yield session
    finally:
        session.close()


def after_commit(session: Session, call: Callable[[], None]) -> None:
    """Have ``call`` called when what the session does now can be seen by others; not at all on a rollback."""
    calls = session.info.setdefault(_AFTER_COMMIT, [])
    if call not in calls:
        calls.append(call)


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    # A savepoint's end is announced in the same way.
    if not session.in_nested_transaction():
        for call in session.info.pop(_AFTER_COMMIT, ()):
            call()


@event.listens_for(Session, "after_rollback")
def _rolled_back(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info.pop(_AFTER_COMMIT, None)
