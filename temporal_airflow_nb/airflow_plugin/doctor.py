"""The command ``airflow temporal doctor``, the only one in Airflow that talks to Temporal.

It runs in a process of its own, with the settings and the database of the Airflow that it checks. ``run_checks`` calls
each ``_check_…`` function, which returns the detail to print, or raises an error whose message and hint are printed.
The self-test of the hooks writes rows to Airflow's database and rolls them back; the other checks only read.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from airflow._shared.timezones import timezone
from airflow.configuration import conf
from airflow.models.dag import DagModel
from sqlalchemy import func, select

from temporal_airflow_nb.airflow_plugin import selftest
from temporal_airflow_nb.airflow_plugin.status import airflow_command, open_tables
from temporal_airflow_nb.airflow_plugin.temporal_ui import ui_url
from temporal_airflow_nb.config import environment
from temporal_airflow_nb.config.airflow_version import check_airflow
from temporal_airflow_nb.config.temporal import connect_client
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError
from temporal_airflow_nb.health import print_report, run_checks
from temporal_airflow_nb.orchestration.outbox import outbox, tables, worker_registry
from temporal_airflow_nb.orchestration.outbox.rollout import Rollout, configured_rollout, is_enabled
from temporal_airflow_nb.orchestration.schedules import records

if TYPE_CHECKING:
    from temporalio.client import Client

_LATE = 60.0
"""The age in seconds from which an undelivered message is reported as an error."""


@airflow_command
def doctor(arguments: argparse.Namespace) -> int:
    """Check everything that a run needs; return the exit code of the worst finding."""
    checks = {
        "airflow": check_airflow,
        "orchestrator": _check_orchestrator,
        "dags": _check_dags,
        "tables": _check_tables,
        "hooks": _check_hooks,
        "temporal": _check_temporal,
        "worker": _check_worker,
        "outbox": _check_outbox,
        "schedules": _check_schedules,
        "links": _check_links,
    }
    return print_report(run_checks(checks), arguments.output)


def _check_orchestrator() -> str:
    if is_enabled():
        return "on"
    # Raises the error of an unknown orchestrator.
    configured_rollout()
    return f"off; to switch it on, set `[core] orchestrator = {environment.ORCHESTRATOR}`"


def _check_dags() -> str:
    text = conf.get("temporal_airflow", "dags", fallback=None) or "*"
    rollout = Rollout.parse(text)
    with open_tables() as session:
        dag_ids = session.scalars(select(DagModel.dag_id).where(~DagModel.is_stale)).all()
        managed = rollout.managed(dag_ids, session)
    return f"{text}: {len(managed)} of {len(dag_ids)} DAGs"


def _check_tables() -> str:
    with open_tables():
        return ", ".join(sorted(tables.metadata.tables))


def _check_hooks() -> str:
    with open_tables():
        selftest.run()
    return "a scheduler with this configuration leaves Temporal's runs alone"


def _check_temporal() -> str:
    return asyncio.run(_ask_temporal())


async def _ask_temporal() -> str:
    client = await connect_client()
    missing = [
        name for name in environment.SEARCH_ATTRIBUTES if not await _has_search_attribute(client, name)
    ]
    address = f"{client.service_client.config.target_host}, namespace {client.namespace}"
    if missing:
        options = " ".join(f"--name {name} --type Keyword" for name in missing)
        raise InvalidInputError(
            f"At {address}, search attributes are missing: {', '.join(missing)}.",
            hint="Create them with `temporal operator search-attribute create "
            f"--namespace {client.namespace} {options}`.",
        )
    return address


async def _has_search_attribute(client: Client, attribute: str) -> bool:
    from temporalio.service import RPCError, RPCStatusCode

    # The server refuses a query that names an unknown attribute.
    try:
        await client.count_workflows(f'{attribute} = ""')
    except RPCError as error:
        if error.status == RPCStatusCode.INVALID_ARGUMENT:
            return False
        raise ServiceUnavailableError(
            f"Temporal refuses requests about namespace {client.namespace!r}: {error.message}",
            hint="Check TEMPORAL_NAMESPACE and the permissions of the credentials.",
            service="temporal",
            namespace=client.namespace,
        ) from error
    return True


def _check_worker() -> str:
    wanted = environment.task_queue()
    with open_tables() as session:
        live = [
            row for row in worker_registry.list_live_workers(session) if wanted in row.task_queues.split(", ")
        ]
        last = worker_registry.get_last_seen_worker(session)
    if not live:
        seen = f" The last one was seen at {last.seen_at:%Y-%m-%d %H:%M:%S} UTC." if last else ""
        raise ServiceUnavailableError(
            f"No worker serves the task queue {wanted!r}.{seen}",
            hint="Start one with `temporal-airflow worker`.",
            service="worker",
        )
    if all(row.error for row in live):
        raise ServiceUnavailableError(
            f"The workers can't reach Temporal at {live[0].address}: {live[0].error}",
            hint="Their runs wait, and go on when Temporal answers.",
            service="temporal",
            address=live[0].address,
        )
    return ", ".join(row.identity for row in live)


def _check_outbox() -> str:
    with open_tables() as session:
        count, since = session.execute(_select_deliverable()).one()
    if not count:
        return "no message waits"
    age = (timezone.utcnow() - since).total_seconds()
    text = f"{count} messages wait, the oldest for {age:.0f} s"
    if age > _LATE:
        raise ServiceUnavailableError(
            f"{text}.", hint="See the lines `temporal` and `worker`.", service="worker"
        )
    return text


def _select_deliverable() -> Any:
    """Select the messages that don't wait for limits or for a DAG to be unpaused."""
    kinds = (outbox.START, outbox.RESYNC, outbox.WAKE)
    table = tables.outbox
    return select(func.count(), func.min(table.c.created_at)).where(table.c.kind.in_(kinds))


def _check_schedules() -> str:
    # Raises the error of a malformed prefix.
    environment.schedule_id_prefix()
    with open_tables() as session:
        return records.describe(session)


def _check_links() -> str:
    with open_tables() as session:
        last = worker_registry.get_last_seen_worker(session)
    ui = ui_url(last and last.address)
    return ui or "none; set `[temporal_airflow] ui_url` to the address of Temporal's UI"
