"""Sessions and transactions on Airflow's metadata database.

Used by the worker process and by Airflow's own processes that load our plugin. Sessions are never shared between
threads. On SQLite two locks follow each other, always in this order:

1. ``_sqlite_writer``, a lock between the threads of this process;
2. SQLite's write lock on the file, between processes, taken with ``BEGIN IMMEDIATE``.

:func:`transaction` takes both, :func:`block_other_writers` only the first. :func:`begin_writing` takes only the second,
on a connection that its caller has open: such a caller must not wait for the first afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, text
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

# SQLite has one writer. The threads of this process queue for this lock rather than in SQLite's busy handler, which
# sleeps up to 100 ms at a time. Reentrant, because Airflow's code, called inside `block_other_writers`, may reach
# `transaction` again in the same thread. It protects nothing else: PostgreSQL doesn't use it.
_sqlite_writer = threading.RLock()

# Written by every thread. Only SQLite's transactions are serialized here, so that two threads may lose an increment on
# PostgreSQL: a reader that waits for a change must query again after some time as well.
_commits = 0
_AFTER_COMMIT = "temporal_airflow_nb.after_commit"


def commit_count() -> int:
    """Return how many transactions this process has committed.

    A changed number is a cheap sign that the database may have changed. Commits of sessions that Airflow's own code
    opened, and of other processes, aren't counted.
    """
    return _commits


def speed_up_sqlite(engine: Engine) -> None:
    """
    Skip the flush to disk at each commit. In WAL mode the database stays consistent without it.

    A killed process loses nothing; a power failure may lose the last transactions.
    """

    # SQLite keeps `synchronous` per connection, so that each new connection of the pool has to set it.
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")


def begin_writing(connection: Connection) -> None:
    """
    On SQLite, begin the connection's transaction with SQLite's write lock, unless a transaction has begun.

    A transaction that began with a read fails with "database is locked", without waiting, when it writes after another
    process has written.
    """
    if connection.dialect.name != "sqlite":
        return
    # SQLAlchemy's own "begin" sends nothing to SQLite: only the driver knows whether a transaction is open there. A
    # driver without `in_transaction` is left alone.
    if not getattr(connection.connection.dbapi_connection, "in_transaction", True):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def transaction(*, shared: bool = False) -> Iterator[Session]:
    """
    Yield a session whose work is committed at the end, or rolled back on an exception.

    On SQLite the session has the write lock from its start, so that rows read here can't change before they are
    written. On PostgreSQL ``SELECT … FOR UPDATE`` gives that guarantee.

    Parameters
    ----------
    shared
        Whether to use this thread's scoped session, the one that Airflow's code gets when it creates a session itself.
        Such code commits and closes it, as it does in Airflow's own processes.
    """
    global _commits
    from airflow import settings

    session = settings.Session() if shared else settings.NonScopedSession()
    sqlite = session.get_bind().dialect.name == "sqlite"
    # Lock order: the threads' lock, then SQLite's write lock. Both are held until the session is closed.
    if sqlite:
        _sqlite_writer.acquire()
    try:
        if sqlite:
            # Waits for other processes in SQLite's busy handler, and raises OperationalError when its time is over.
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
    """Keep other threads of this process out of :func:`transaction`, while Airflow's code opens sessions itself.

    Takes the threads' lock only: Airflow's sessions take SQLite's write lock when they first write.
    """
    from airflow import settings

    assert settings.engine is not None
    if settings.engine.dialect.name != "sqlite":
        yield
        return
    with _sqlite_writer:
        yield


@contextmanager
def reading() -> Iterator[Session]:
    """Yield a session for queries; nothing is committed. Takes no lock: in WAL mode readers don't wait for a writer."""
    from airflow import settings

    session = settings.NonScopedSession()
    try:
        yield session
    finally:
        session.close()


def after_commit(session: Session, call: Callable[[], None]) -> None:
    """Call ``call`` once the session's work is committed and others can see it; never after a rollback.

    The committing thread calls it, and still holds the threads' lock if the session is that of :func:`transaction`:
    ``call`` must return at once.
    """
    calls = session.info.setdefault(_AFTER_COMMIT, [])
    if call not in calls:
        calls.append(call)


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    # SQLAlchemy sends this event for the end of a savepoint too, when nothing is visible to others yet.
    if not session.in_nested_transaction():
        for call in session.info.pop(_AFTER_COMMIT, ()):
            call()


@event.listens_for(Session, "after_rollback")
def _rolled_back(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info.pop(_AFTER_COMMIT, None)
