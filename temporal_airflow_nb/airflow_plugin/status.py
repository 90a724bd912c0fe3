"""The command ``airflow temporal status``, which reads only Airflow's database.

It runs in a process of its own and writes nothing. It also has the parts that ``doctor.py`` shares: the decorator of a
command, and the session that checks the tables.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, TypedDict

from airflow._shared.timezones import timezone
from airflow.configuration import conf
from airflow.utils.cli import suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, OperationalError

from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError, TemporalAirflowError
from temporal_airflow_nb.health import print_table
from temporal_airflow_nb.orchestration.outbox import managed_runs, tables, worker_registry
from temporal_airflow_nb.orchestration.outbox.rollout import configured_rollout
from temporal_airflow_nb.orchestration.schedules.records import select_native_dag_ids
from temporal_airflow_nb.tasks.database import reading

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class OutboxStatus(TypedDict):
    """The undelivered messages, and the time of the oldest one."""

    messages: int
    since: str | None


class Status(TypedDict):
    """The state that the command prints; with ``--output json`` as it is."""

    orchestrator: str
    dags: str
    runs: int
    outbox: OutboxStatus
    workers: list[dict[str, Any]]
    schedules: int


def airflow_command(function: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], None]:
    """Decorate a command: its result becomes the exit code, and errors are printed as messages."""

    # Airflow registers the settings of providers only in commands with this decorator; `[temporal_airflow]` is one.
    @wraps(function)
    @suppress_logs_and_warning  # type: ignore[untyped-decorator]
    @providers_configuration_loaded  # type: ignore[untyped-decorator]
    def call(arguments: argparse.Namespace) -> None:
        try:
            code = function(arguments)
        except TemporalAirflowError as error:
            print(f"Error: {error}", file=sys.stderr)
            code = error.exit_code
        sys.stdout.flush()
        sys.exit(code)

    return call


@contextmanager
def open_tables() -> Iterator[Session]:
    """
    Yield a session for queries on the tables of this package.

    Raises
    ------
    InvalidInputError
        Tables or columns are missing.
    ServiceUnavailableError
        The database can't be reached.
    """
    with reading() as session:
        try:
            missing = tables.missing_columns(session.connection())
            if missing:
                names = sorted({column.table.name for column in missing})
                raise InvalidInputError(
                    f"Airflow's database lacks tables or columns that this version needs: {', '.join(names)}.",
                    hint="Create them with `airflow db migrate`.",
                )
            yield session
        except OperationalError as error:
            raise _unreachable(session, error) from error


def _unreachable(session: Session, error: DBAPIError) -> ServiceUnavailableError:
    address = session.get_bind().engine.url.render_as_string(hide_password=True)
    return ServiceUnavailableError(
        f"Airflow's database {address} can't be used: {error.orig}",
        hint="Check `[database] sql_alchemy_conn` in Airflow's configuration.",
        service="database",
        address=address,
    )


@airflow_command
def status(arguments: argparse.Namespace) -> int:
    """Print the state of Temporal's runs, messages, schedules and workers."""
    state = collect_status()
    if arguments.output == "json":
        print(json.dumps(state, indent=2))
    else:
        _print_tables(state)
    return 0


def collect_status() -> Status:
    """Return the state that the command prints."""
    rollout = configured_rollout()
    with open_tables() as session:
        waiting, since = session.execute(
            select(func.count(), func.min(tables.outbox.c.created_at)).select_from(tables.outbox)
        ).one()
        workers = session.execute(select(tables.workers).order_by(tables.workers.c.seen_at.desc())).all()
        return {
            "orchestrator": "off" if rollout is None else "on",
            "dags": conf.get("temporal_airflow", "dags", fallback="*"),
            "runs": len(managed_runs.list_unfinished_runs(session)),
            "outbox": {"messages": waiting, "since": _iso(since)},
            "workers": [_describe_worker(row) for row in workers],
            "schedules": _count_schedules(session),
        }


def _describe_worker(row: Any) -> dict[str, Any]:
    state = "gone" if timezone.utcnow() - row.seen_at > worker_registry.LIVE_WITHIN else "running"
    if state == "running" and row.error is not None:
        state = "unreachable"
    moments = {"seen_at": _iso(row.seen_at), "error_since": _iso(row.error_since)}
    return {"identity": row.identity, "state": state, **row._mapping, **moments}


def _count_schedules(session: Session) -> int:
    return session.scalars(select(func.count()).select_from(select_native_dag_ids().subquery())).one()


def _iso(moment: datetime | str | None) -> str | None:
    return moment.isoformat() if isinstance(moment, datetime) else moment


def _print_tables(state: Status) -> None:
    messages = str(state["outbox"]["messages"])
    if state["outbox"]["since"]:
        messages += f", since {state['outbox']['since']}"
    rows = [
        ("orchestrator", state["orchestrator"]),
        ("DAGs", state["dags"]),
        ("running runs", str(state["runs"])),
        ("waiting messages", messages),
        ("schedules", str(state["schedules"])),
    ]
    print_table(("Temporal", ""), rows)
    print_table(
        ("worker", "state", "Temporal", "task queues", "seen"),
        [
            (
                worker["identity"],
                worker["state"] + (f": {worker['error']}" if worker["state"] == "unreachable" else ""),
                f"{worker['address']}, {worker['namespace']}",
                worker["task_queues"],
                worker["seen_at"],
            )
            for worker in state["workers"]
        ],
    )
