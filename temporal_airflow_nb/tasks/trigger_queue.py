"""The queue of the triggers that our worker runs: a triggerer of Airflow leaves a named queue alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from airflow.models.trigger import Trigger
from sqlalchemy import update

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

TRIGGER_QUEUE = "temporal-airflow"


def move_to_worker_queue(ids: Collection[int], session: Session) -> None:
    """Put triggers that no process of ours has made, as some tasks start from theirs, into our queue."""
    if ids:
        session.execute(
            update(Trigger).where(Trigger.id.in_(ids), Trigger.queue.is_(None)).values(queue=TRIGGER_QUEUE)
        )
