"""What a worker says of itself in Airflow's database: that it lives, and whether it reaches Temporal.

Airflow's processes, which never talk to Temporal, show it.
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

    from sqlalchemy import Row
    from sqlalchemy.orm import Session
    from temporalio.client import Client

log = structlog.get_logger(__name__)

UNREACHABLE = "temporal unreachable"
"""The event in Airflow's audit log."""

_BEAT_SECONDS = 5.0
_ANSWER = timedelta(seconds=5)
ALIVE = timedelta(seconds=30)
_KEPT = timedelta(days=1)
_TIDY = timedelta(hours=1)
_RUNS_AT_ONCE = 1_000


class WorkerRegistration:
    """
    Looks every few seconds whether Temporal answers, and writes that down.

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
        self._tidy_at = timezone.utcnow()

    async def run(self) -> None:
        """Do so until cancelled."""
        while True:
            error = await self._error()
            try:
                await asyncio.to_thread(self._record, error)
            except SQLAlchemyError as failure:
                log.warning("Could not record that this worker lives; trying again", error=repr(failure))
            await asyncio.sleep(_BEAT_SECONDS)

    async def _error(self) -> str | None:
        """Return why Temporal can't be reached, or None."""
        from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

        request = DescribeNamespaceRequest(namespace=self._client.namespace)
        try:
            answer = self._client.workflow_service.describe_namespace(request, timeout=_ANSWER)
            await asyncio.wait_for(answer, _ANSWER.total_seconds())
        except asyncio.TimeoutError:
            return f"no answer in {_ANSWER.total_seconds():.0f} s"
        except Exception as error:
            return str(error) or repr(error)
        return None

    def _record(self, error: str | None) -> None:
        now = timezone.utcnow()
        if error is None:
            self._error_since = None
        elif self._error_since is None:
            self._error_since = now
            log.warning("Temporal can't be reached; runs wait", address=self._facts["address"], error=error)
        seen = {
            **self._facts,
            "seen_at": now,
            "error": error and error[:500],
            "error_since": self._error_since,
        }
        with transaction() as session:
            mine = tables.workers.c.identity == self._identity
            if not session.execute(update(tables.workers).where(mine).values(**seen)).rowcount:  # type: ignore[attr-defined]
                session.execute(insert(tables.workers).values(identity=self._identity, **seen))
            if error is not None:
                _log_waiting_runs(f"Temporal at {self._facts['address']} can't be reached: {error}", session)
            if now >= self._tidy_at:
                self._tidy_at = now + _TIDY
                session.execute(delete(tables.workers).where(tables.workers.c.seen_at < now - _KEPT))
                workflow_records.forget_deleted(session)


def _log_waiting_runs(reason: str, session: Session) -> None:
    """Say in the audit log of each run that waits that it does: once in an outage."""
    since = session.scalar(select(func.min(tables.workers.c.error_since)).where(_lives()))
    told = exists().where(
        Log.event == UNREACHABLE,
        Log.dag_id == tables.outbox.c.dag_id,
        Log.run_id == tables.outbox.c.run_id,
        Log.dttm >= since,
    )
    # What is kept until a DAG isn't paused any more waits for somebody else.
    waiting = (
        select(tables.outbox.c.dag_id, tables.outbox.c.run_id)
        .where(tables.outbox.c.kind != UNPAUSED, ~told)
        .distinct()
        .limit(_RUNS_AT_ONCE)
    )
    for dag_id, run_id in session.execute(waiting).all():
        session.add(Log(event=UNREACHABLE, dag_id=dag_id, run_id=run_id, extra=reason))


def _lives() -> Any:
    return tables.workers.c.seen_at >= timezone.utcnow() - ALIVE


def living(session: Session) -> list[Row[Any]]:
    """Return the workers that have been seen lately."""
    return list(session.execute(select(tables.workers).where(_lives()).order_by(tables.workers.c.identity)))


def last_seen(session: Session) -> Row[Any] | None:
    """Return the worker that was seen last."""
    return session.execute(
        select(tables.workers).order_by(tables.workers.c.seen_at.desc()).limit(1)
    ).one_or_none()
