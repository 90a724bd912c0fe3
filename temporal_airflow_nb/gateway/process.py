"""The worker process: it has Airflow loaded, and runs the Temporal worker and the gateway.

Run as ``python -m temporal_airflow_nb.gateway.process HOME``; the stack manager starts it. The zygotes, processes that
have a DAG file's imports loaded and are forked for each try, are its children. The first of them is forked before this
process has a second thread: a fork copies only the thread that calls it, and leaves the locks of others locked.

The main thread runs the event loop of the Temporal worker, and receives the signals. The gateway has a thread with a
loop of its own. For a connection to a configured Airflow, the same process runs without a worker.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from temporal_airflow_nb.airflow_plugin import session_listeners
from temporal_airflow_nb.config.airflow_version import check_airflow
from temporal_airflow_nb.config.environment import queues
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError, TemporalAirflowError
from temporal_airflow_nb.stack.endpoints import database_url
from temporal_airflow_nb.stack.services.definitions import GATEWAY_ONLY, READY_FD, UI_PROXY
from temporal_airflow_nb.stack.services.ports import LOOPBACK
from temporal_airflow_nb.stack.state_folder import STACK_FILE, read_stack, read_ui_urls

_SERVER_SECONDS = 60.0


def main(home: str) -> NoReturn:
    """Serve until a signal asks the process to end."""
    try:
        asyncio.run(_serve(_prepare(Path(home)), Path(home)))
        code = 0
    except TemporalAirflowError as error:
        _report({"error": error.to_dict()})
        print(error, file=sys.stderr)
        code = error.exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    # No normal exit: Temporal's runtime sometimes aborts the process while the interpreter ends its threads.
    os._exit(code)


def _prepare(home: Path) -> Any:
    """Import Airflow, fork the first zygote while there is one thread, and migrate the database."""
    version = check_airflow()
    # If Airflow loads this package's plugin here, its listeners must not write a second message for each change.
    session_listeners.disable()
    embedded = GATEWAY_ONLY not in os.environ
    if embedded:
        # A connection for each thread that supervises a task, and some for the gateway.
        os.environ.setdefault("AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE", "50")
    # Airflow keeps two frames of an import error by default; the user's own line is often further up.
    os.environ.setdefault("AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH", "50")
    # Airflow doesn't store a DAG again within 30 s by default; a file that a user runs must be stored as it is now.
    os.environ["AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL"] = "0"
    # Not at the top of the module: before Airflow is imported, its version is checked and its settings are made.
    try:
        from temporal_airflow_nb.tasks.zygotes import preload_and_fork

        zygotes = preload_and_fork()
        # After the fork: task processes keep their levels, and the root zygote inherits no connection to the database.
        _raise_log_levels()
        _prepare_database(home if embedded else None, version)
    # Every error is raised again; one about the user's database setting gets a message that names the setting.
    except Exception as error:
        if embedded or (known := _database_error(error)) is None:
            raise
        raise known from None
    return zygotes


def _database_error(error: Exception) -> TemporalAirflowError | None:
    """Return the error to report if an exception is about the configured database, else None."""
    from sqlalchemy.exc import ArgumentError, OperationalError

    url = database_url(os.environ)
    hint = "Check AIRFLOW__DATABASE__SQL_ALCHEMY_CONN, or sql_alchemy_conn in airflow.cfg."
    if isinstance(error, OperationalError):
        reason = str(error.orig).strip().splitlines()[0]
        return ServiceUnavailableError(
            f"Airflow's database {url} can't be reached: {reason}.",
            hint=hint,
            service="database",
            address=url,
        )
    if isinstance(error, (ArgumentError, ModuleNotFoundError)):
        return InvalidInputError(
            f"Airflow's database setting {url} can't be used: {error}.", hint=hint, address=url
        )
    return None


def _raise_log_levels() -> None:
    """Keep Airflow's lines about each request of a task out of the worker's log."""
    # Private: Airflow's loggers of structlog take their level from this table, not from `logging`. If Airflow renames
    # it, the worker doesn't start.
    from airflow._shared.logging.structlog import PER_LOGGER_LEVELS

    PER_LOGGER_LEVELS.update({"airflow": logging.WARNING})
    for name in ("airflow", "alembic", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _prepare_database(home: Path | None, version: str) -> None:
    """Migrate an embedded stack's database if need be; create this package's tables in any database."""
    from airflow import settings
    from airflow.utils.db import initdb

    from temporal_airflow_nb.orchestration.outbox.tables import create_tables
    from temporal_airflow_nb.stack.services.airflow_config import is_migrated, record_migration
    from temporal_airflow_nb.tasks.database import speed_up_sqlite

    assert settings.engine is not None
    if settings.engine.dialect.name == "sqlite":
        speed_up_sqlite(settings.engine)
    migrate = home is not None and not is_migrated(home, version)
    if migrate:
        initdb()
    with settings.engine.begin() as connection:
        create_tables(connection)
    # Last: Airflow's other processes start as soon as the migration is recorded.
    if home is not None and migrate:
        record_migration(home, version)


async def _serve(zygotes: Any, home: Path) -> None:
    from temporal_airflow_nb.gateway.app import Gateway, application
    from temporal_airflow_nb.gateway.submission import Submissions
    from temporal_airflow_nb.gateway.temporal_ui import UiProxy

    embedded = GATEWAY_ONLY not in os.environ
    stopped = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stopped.set)
    worker = None
    if embedded:
        from temporal_airflow_nb.orchestration.outbox.rollout import configured_rollout
        from temporal_airflow_nb.orchestration.worker import AirflowWorker

        has_scheduler = configured_rollout() is not None
        worker = AirflowWorker(
            await _connect(), zygotes, has_scheduler=has_scheduler, has_triggerer=False, queues=queues()
        )
        client = worker.runner.client
    else:
        from temporal_airflow_nb.tasks.client import DatabaseClient

        client = DatabaseClient()
    gateway = Gateway(
        application(
            _read_token(home),
            Submissions(zygotes, client, home if embedded else None),
            lambda: read_ui_urls(home),
            worker.client if worker is not None else None,
        ),
        int(os.environ["TEMPORAL_AIRFLOW_GATEWAY_PORT"]),
    )
    ui_proxy = None
    if server := os.environ.get(UI_PROXY):
        host, port = json.loads(server)
        ui_proxy = UiProxy((LOOPBACK, port), (host, port))
        ui_proxy.start()
    await gateway.start()
    working = (
        asyncio.create_task(worker.run())
        if worker is not None
        else asyncio.create_task(asyncio.Event().wait())
    )
    # Now the gateway answers. The worker may still be starting: tasks wait in Temporal until then.
    _report({"ready": True})
    await asyncio.wait([working, asyncio.create_task(stopped.wait())], return_when=asyncio.FIRST_COMPLETED)
    gateway.stop()
    if ui_proxy is not None:
        ui_proxy.stop()
    # A worker that ends without a request has failed. `result` raises its error, and the manager restarts the process.
    if working.done():
        working.result()
    if worker is not None:
        await worker.stop()
    zygotes.stop()


def _read_token(home: Path) -> str:
    token = read_stack(home).get("gateway", {}).get("token")
    if not token:
        raise ServiceUnavailableError(
            f"The gateway's token isn't in {home / STACK_FILE}.",
            hint="Start the stack again: `temporal-airflow down`, then `temporal-airflow up`.",
            path=str(home / STACK_FILE),
        )
    return token


async def _connect() -> Any:
    """Connect to Temporal's server, which starts at the same time as this process."""
    from temporal_airflow_nb.config.temporal import connect_client

    deadline = asyncio.get_running_loop().time() + _SERVER_SECONDS
    while True:
        try:
            return await connect_client()
        except ServiceUnavailableError:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.1)


def _report(message: dict[str, object]) -> None:
    # Only the first report is written: the manager reads one line, and closes its end after that.
    if fd := os.environ.pop(READY_FD, None):
        with open(int(fd), "w") as pipe:
            pipe.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
