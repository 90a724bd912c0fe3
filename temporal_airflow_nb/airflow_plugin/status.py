"""``airflow temporal status``: from Airflow's database alone."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any

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


def command(function: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], None]:
    """Have a command exit with the code that it returns, and with a message where the user can do something."""

    @wraps(function)
    @suppress_logs_and_warning
    @providers_configuration_loaded
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
    Yield a session for queries on our tables.

    Raises
    ------
    InvalidInputError
        They aren't there.
    ServiceUnavailableError
        The database can't be reached.
    """
    with reading() as session:
        try:
            missing = tables.missing_columns(session.connection())
            if missing:
                names = sorted({column.table.name for column in missing})
                raise InvalidInputError(
                    f"Airflow's database lacks what this version needs: {', '.join(names)}",
                    hint="Create it: airflow db migrate",
                )
            yield session
        except OperationalError as error:
            raise _unreachable(session, error) from error


def _unreachable(session: Session, error: DBAPIError) -> ServiceUnavailableError:
    where = session.get_bind().engine.url.render_as_string(hide_password=True)
    return ServiceUnavailableError(
        f"Airflow's database {where} can't be used: {error.orig}",
        hint="Check [database] sql_alchemy_conn in Airflow's configuration.",
        service="database",
        address=where,
    )


@command
def status(arguments: argparse.Namespace) -> int:
    """Print what there is."""
    facts = collect()
    if arguments.output == "json":
        print(json.dumps(facts, indent=2))
    else:
        _print(facts)
    return 0


def collect() -> dict[str, Any]:
    """Return what the command shows."""
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
            "workers": [_worker(row) for row in workers],
            "schedules": _schedules(session),
        }


def _worker(row: Any) -> dict[str, Any]:
    state = "gone" if timezone.utcnow() - row.seen_at > worker_registry.LIVE_WITHIN else "running"
    if state == "running" and row.error is not None:
        state = "unreachable"
    moments = {"seen_at": _iso(row.seen_at), "error_since": _iso(row.error_since)}
    return {"identity": row.identity, "state": state, **row._mapping, **moments}


def _schedules(session: Session) -> int:
    return session.scalars(select(func.count()).select_from(select_native_dag_ids().subquery())).one()


def _iso(moment: datetime | str | None) -> str | None:
    return moment.isoformat() if isinstance(moment, datetime) else moment


def _print(facts: dict[str, Any]) -> None:
    messages = str(facts["outbox"]["messages"])
    if facts["outbox"]["since"]:
        messages += f", since {facts['outbox']['since']}"
    rows = [
        ("orchestrator", facts["orchestrator"]),
        ("DAGs", facts["dags"]),
        ("running runs", str(facts["runs"])),
        ("messages that wait", messages),
        ("schedules", str(facts["schedules"])),
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
            for worker in facts["workers"]
        ],
    )
