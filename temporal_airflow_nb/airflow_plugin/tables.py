"""The tables of this package in ``airflow db migrate``, ``check-migrations`` and ``reset``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.utils.db_manager import BaseDBManager

from temporal_airflow_nb.orchestration.outbox import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection


class TemporalDBManager(BaseDBManager):  # type: ignore[misc]
    """
    The manager that adds missing tables and columns of this package to the database.

    It needs no revisions: tables and nullable columns are only ever added, and a worker does the same when it starts.
    """

    metadata = tables.metadata
    version_table_name = "temporal_airflow_version"
    migration_dir = str(Path(__file__).parent / "migrations")
    supports_table_dropping = True

    def check_migration(self) -> bool:
        """Return whether all tables and columns exist."""
        return not tables.missing_columns(self.session.connection())

    def initdb(self, *_: Any, **__: Any) -> None:
        """Create the missing tables and columns."""
        self.upgradedb()

    def create_db_from_orm(self) -> None:
        """Create the missing tables and columns."""
        self.upgradedb()

    def upgradedb(self, *_: Any, **__: Any) -> None:
        """Create the missing tables and columns."""
        tables.create_tables(self.session.connection())
        self.session.commit()

    def downgrade(self, *_: Any, **__: Any) -> None:
        """Change nothing: an older version of this package ignores what it doesn't know."""

    def drop_tables(self, connection: Connection) -> None:
        """Drop the tables."""
        # The base class also drops the table of Alembic's version, which doesn't exist here.
        tables.metadata.drop_all(connection)
