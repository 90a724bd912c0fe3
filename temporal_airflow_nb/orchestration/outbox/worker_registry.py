"""The workers that are running, in Airflow's database, and whether each of them reaches Temporal.

Each worker process writes only its own row, every few seconds and in a transaction of its own, so that workers need no
lock between them. Airflow's processes show the rows: the commands `airflow temporal status` and `airflow temporal
doctor`, and the page of a run.
"""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from airflow._shared.timezones import timezone
from airflow.models.log import Log
from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from temporal_airflow_nb.orchestration.outbox import tables, workflow_records
from temporal_airflow_nb.orchestration.outbox.outbox import UNPAUSED
from temporal_airflow_nb.tasks.database import transaction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.orm import Session
    from temporalio.client import Client

log = structlog.get_logger(__name__)

UNREACHABLE = "temporal unreachable"
"""The name of the event in Airflow's audit log."""

_HEARTBEAT_SECONDS = 5.0
_ANSWER_TIMEOUT = timedelta(seconds=5)
LIVE_WITHIN = timedelta(seconds=30)
"""A worker whose last heartbeat is older counts as gone."""
_KEEP_FOR = timedelta(days=1)
_CLEAN_UP_EVERY = timedelta(hours=1)
_MAX_LOGGED_RUNS = 1_000


class WorkerRegistration:
    """
    A loop of the worker that records that it is running, and whether Temporal answers it.

    Parameters
    ----------
    client
        The worker's client.
    task_queues
        The Temporal task queues that the worker serves.
    """

    def __init__(self, client: Client, task_queues: Iterable[str]) -> None:
        self._client = client
        host = socket.gethostname()
        self._identity = f"{os.getpid()}@{host}"[:250]
        self._facts = {
            "hostname": host[:250],
            "pid": os.getpid(),
            "address": client.service_client.config.target_host[:250],
            "namespace": client.namespace[:250],
            "task_queues": ", ".join(task_queues)[:500],
        }
        self._error_since: datetime | None = None
        self._clean_up_at = timezone.utcnow()

    async def run(self) -> None:
        """Record it until cancelled."""
        while True:
            error = await self._find_error()
            try:
                await asyncio.to_thread(self._record, error)
            except SQLAlchemyError as failure:
                log.warning("Could not record that this worker is running; trying again", error=repr(failure))
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def _find_error(self) -> str | None:
        """Ask Temporal for the namespace; return why it didn't answer, or None if it did."""
        from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

        request = DescribeNamespaceRequest(namespace=self._client.namespace)
        try:
            answer = self._client.workflow_service.describe_namespace(request, timeout=_ANSWER_TIMEOUT)
            await asyncio.wait_for(answer, _ANSWER_TIMEOUT.total_seconds())
        except asyncio.TimeoutError:
            return f"no answer in {_ANSWER_TIMEOUT.total_seconds():.0f} s"
        except Exception as error:
            # Whatever it is, it is what the doctor and the page of a run have to show.
            return str(error) or repr(error)
        return None

    def _record(self, error: str | None) -> None:
        now = timezone.utcnow()
        if error is None:
            self._error_since = None
        elif self._error_since is None:
            self._error_since = now
            log.warning("Temporal can't be reached; runs wait", address=self._facts["address"], error=error)
        values = {
            **self._facts,
            "seen_at": now,
            "error": error and error[:500],
            "error_since": self._error_since,
        }
        # One transaction: the audit log below counts this worker's outage from the row that is written first.
        with transaction() as session:
            is_own_row = tables.workers.c.identity == self._identity
            if not session.execute(update(tables.workers).where(is_own_row).values(**values)).rowcount:  # type: ignore[attr-defined]
                session.execute(insert(tables.workers).values(identity=self._identity, **values))
            if error is not None:
                _log_waiting_runs(f"Temporal at {self._facts['address']} can't be reached: {error}", session)
            if now >= self._clean_up_at:
                self._clean_up_at = now + _CLEAN_UP_EVERY
                session.execute(delete(tables.workers).where(tables.workers.c.seen_at < now - _KEEP_FOR))
                workflow_records.delete_orphaned(session)


def _log_waiting_runs(reason: str, session: Session) -> None:
    """Add a line to the audit log of each run that waits for Temporal, once in an outage."""
    # Every worker that can't reach Temporal gets here. They share the beginning of the outage, so that a run gets one
    # line.
    since = session.scalar(select(func.min(tables.workers.c.error_since)).where(_is_live()))
    is_logged = exists().where(
        Log.event == UNREACHABLE,
        Log.dag_id == tables.outbox.c.dag_id,
        Log.run_id == tables.outbox.c.run_id,
        Log.dttm >= since,
    )
    # A message that is kept until its DAG is unpaused doesn't wait for Temporal.
    waiting = (
        select(tables.outbox.c.dag_id, tables.outbox.c.run_id)
        .where(tables.outbox.c.kind != UNPAUSED, ~is_logged)
        .distinct()
        .limit(_MAX_LOGGED_RUNS)
    )
    for dag_id, run_id in session.execute(waiting).all():
        session.add(Log(event=UNREACHABLE, dag_id=dag_id, run_id=run_id, extra=reason))


def _is_live() -> ColumnElement[bool]:
    condition: ColumnElement[bool] = tables.workers.c.seen_at >= timezone.utcnow() - LIVE_WITHIN
    return condition


def list_live_workers(session: Session) -> list[Row[Any]]:
    """Return the workers whose last heartbeat is at most 30 seconds old."""
    return list(session.execute(select(tables.workers).where(_is_live()).order_by(tables.workers.c.identity)))


def get_last_seen_worker(session: Session) -> Row[Any] | None:
    """Return the worker with the newest heartbeat."""
    return session.execute(
        select(tables.workers).order_by(tables.workers.c.seen_at.desc()).limit(1)
    ).one_or_none()
