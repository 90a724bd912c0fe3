"""``temporal-airflow worker``: a worker for the Airflow and the Temporal that the environment configures.

The process checks its settings, imports Airflow, forks the root zygote, and only then starts threads: those of
Temporal's client and worker, and one for each task.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from temporal_airflow_nb.airflow_plugin import session_listeners
from temporal_airflow_nb.config import environment
from temporal_airflow_nb.config.airflow_version import check_airflow
from temporal_airflow_nb.config.temporal import connect_client
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError, TemporalAirflowError

if TYPE_CHECKING:
    from temporal_airflow_nb.tasks.zygotes import Zygotes


def main() -> NoReturn:
    """Work until SIGTERM or SIGINT arrives, then exit. Serves the Airflow queues of ``$TEMPORAL_AIRFLOW_QUEUES``."""
    try:
        # Wrong settings are found before Airflow is imported, which takes seconds.
        for check in (environment.queues, environment.native_scheduling, environment.schedule_id_prefix):
            check()
        asyncio.run(_work(_prepare()))
        code = 0
    except TemporalAirflowError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = error.exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    # No normal exit: Temporal's runtime sometimes aborts the process while the interpreter ends its threads.
    os._exit(code)


def _prepare() -> Zygotes:
    check_airflow()
    # If Airflow loads this package's plugin here, its listeners must not write a second message for each change.
    session_listeners.disable()
    from temporal_airflow_nb.tasks.zygotes import preload_and_fork

    # While this process has one thread: Temporal's client starts many, and a process with threads must not fork. The
    # database comes after the fork, so that the zygote inherits no connection.
    zygotes = preload_and_fork()
    try:
        _prepare_database()
    except TemporalAirflowError:
        zygotes.stop()
        raise
    return zygotes


def _prepare_database() -> None:
    from airflow import settings
    from sqlalchemy import inspect
    from sqlalchemy.exc import DBAPIError

    from temporal_airflow_nb.orchestration.outbox.tables import create_tables

    # Airflow's tables belong to `airflow db migrate`; the worker creates this package's tables only.
    engine = settings.engine
    assert engine is not None
    where = engine.url.render_as_string(hide_password=True)
    try:
        with engine.begin() as connection:
            if not inspect(connection).has_table("dag_run"):
                raise InvalidInputError(
                    f"Airflow's database {where} has no tables.",
                    hint="Create them with `airflow db migrate`.",
                )
            create_tables(connection)
    except DBAPIError as error:
        raise ServiceUnavailableError(
            f"Airflow's database {where} can't be used: {error.orig}",
            hint="Check [database] sql_alchemy_conn in Airflow's configuration.",
            service="database",
            address=where,
        ) from error


async def _work(zygotes: Zygotes) -> None:
    from temporal_airflow_nb.orchestration.scheduling.airflow_queues import default_queue
    from temporal_airflow_nb.orchestration.worker import AirflowWorker

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        client = await connect_client()
    except TemporalAirflowError:
        zygotes.stop()
        raise
    queues = environment.queues() or [default_queue()]
    worker = AirflowWorker(client, zygotes, has_scheduler=True, has_triggerer=True, queues=queues)
    working = asyncio.create_task(worker.run())
    print(
        f"Working for {client.service_client.config.target_host}, namespace {client.namespace}, "
        f"task queue {environment.task_queue()}, Airflow queues {', '.join(queues)}. Ctrl-C ends it.",
        flush=True,
    )
    await asyncio.wait([working, asyncio.create_task(stopped.wait())], return_when=asyncio.FIRST_COMPLETED)
    # A worker that ends without a signal has failed: `result` raises its error.
    if working.done():
        zygotes.stop()
        working.result()
    await worker.stop()
