"""``airflow temporal doctor``: the one command of Airflow that talks to Temporal."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from airflow._shared.timezones import timezone
from airflow.configuration import conf
from airflow.models.dag import DagModel
from sqlalchemy import func, select

from temporal_airflow_nb.airflow_plugin import selftest
from temporal_airflow_nb.airflow_plugin.status import command, open_tables
from temporal_airflow_nb.airflow_plugin.temporal_ui import ui_url
from temporal_airflow_nb.config import environment
from temporal_airflow_nb.config.airflow_version import check_airflow
from temporal_airflow_nb.config.temporal import connect_client
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError
from temporal_airflow_nb.health import print_report, run_checks
from temporal_airflow_nb.orchestration.outbox import outbox, tables, worker_registry
from temporal_airflow_nb.orchestration.outbox.rollout import (
    ORCHESTRATOR,
    Rollout,
    configured_rollout,
    is_enabled,
)
from temporal_airflow_nb.orchestration.schedules import records

if TYPE_CHECKING:
    from temporalio.client import Client

_LATE = 60.0
"""Seconds that a message may wait while all is well."""


@command
def doctor(arguments: argparse.Namespace) -> int:
    """Look at everything that a run needs; exit with the code of the worst finding."""
    checks = {
        "airflow": check_airflow,
        "orchestrator": _orchestrator,
        "dags": _dags,
        "tables": _tables,
        "hooks": _hooks,
        "temporal": _temporal,
        "worker": _worker,
        "outbox": _outbox,
        "schedules": _schedules,
        "links": _links,
    }
    return print_report(run_checks(checks), arguments.output)


def _orchestrator() -> str:
    if is_enabled():
        return "on"
    configured_rollout()
    return f"off; to switch it on, set [core] orchestrator = {ORCHESTRATOR}"


def _dags() -> str:
    text = conf.get("temporal_airflow", "dags", fallback=None) or "*"
    rollout = Rollout.parse(text)
    with open_tables() as session:
        dag_ids = session.scalars(select(DagModel.dag_id).where(~DagModel.is_stale)).all()
        managed = rollout.managed(dag_ids, session)
    return f"{text}: {len(managed)} of {len(dag_ids)} DAGs"


def _tables() -> str:
    with open_tables():
        return ", ".join(sorted(tables.metadata.tables))


def _hooks() -> str:
    with open_tables():
        selftest.run()
    return "a scheduler with this configuration keeps off Temporal's runs"


def _temporal() -> str:
    return asyncio.run(_ask_temporal())


async def _ask_temporal() -> str:
    client = await connect_client()
    missing = [name for name in environment.SEARCH_ATTRIBUTES if not await _knows(client, name)]
    where = f"{client.service_client.config.target_host}, namespace {client.namespace}"
    if missing:
        options = " ".join(f"--name {name} --type Keyword" for name in missing)
        raise InvalidInputError(
            f"{where}: search attributes are missing: {', '.join(missing)}",
            hint="Create them: temporal operator search-attribute create "
            f"--namespace {client.namespace} {options}",
        )
    return where


async def _knows(client: Client, attribute: str) -> bool:
    from temporalio.service import RPCError, RPCStatusCode

    try:
        await client.count_workflows(f'{attribute} = ""')
    except RPCError as error:
        if error.status == RPCStatusCode.INVALID_ARGUMENT:
            return False
        raise ServiceUnavailableError(
            f"Temporal doesn't answer about namespace {client.namespace}: {error.message}",
            hint="Check TEMPORAL_NAMESPACE, and what the credentials are good for.",
            service="temporal",
            namespace=client.namespace,
        ) from error
    return True


def _worker() -> str:
    wanted = environment.task_queue()
    with open_tables() as session:
        living = [
            row for row in worker_registry.list_live_workers(session) if wanted in row.task_queues.split(", ")
        ]
        last = worker_registry.get_last_seen_worker(session)
    if not living:
        seen = f"; one was seen last at {last.seen_at:%Y-%m-%d %H:%M:%S} UTC" if last else ""
        raise ServiceUnavailableError(
            f"no worker serves the task queue {wanted}{seen}",
            hint="Start one: temporal-airflow worker",
            service="worker",
        )
    if all(row.error for row in living):
        raise ServiceUnavailableError(
            f"the workers can't reach Temporal at {living[0].address}: {living[0].error}",
            hint="Their runs wait, and go on when Temporal answers.",
            service="temporal",
            address=living[0].address,
        )
    return ", ".join(row.identity for row in living)


def _outbox() -> str:
    with open_tables() as session:
        count, since = session.execute(_due()).one()
    if not count:
        return "nothing waits"
    age = (timezone.utcnow() - since).total_seconds()
    said = f"{count} messages wait, the oldest for {age:.0f} s"
    if age > _LATE:
        raise ServiceUnavailableError(said, hint="See the lines on temporal and worker.", service="worker")
    return said


def _due() -> Any:
    """Select what a dispatcher would deliver now: not what waits for a DAG to be unpaused, or a run for its turn."""
    kinds = (outbox.START, outbox.RESYNC, outbox.WAKE)
    table = tables.outbox
    return select(func.count(), func.min(table.c.created_at)).where(table.c.kind.in_(kinds))


def _schedules() -> str:
    environment.schedule_id_prefix()
    with open_tables() as session:
        return records.describe(session)


def _links() -> str:
    with open_tables() as session:
        last = worker_registry.get_last_seen_worker(session)
    ui = ui_url(last and last.address)
    return ui or "none: set [temporal_airflow] ui_url to the address of Temporal's UI"
