"""The queue of the triggers that the worker runs. Airflow's triggerers ignore triggers of a named queue."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from airflow.models.trigger import Trigger
from sqlalchemy import update

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

TRIGGER_QUEUE = "temporal-airflow"


def move_to_worker_queue(ids: Collection[int], session: Session) -> None:
    """Move triggers without a queue to the worker's queue.

    Airflow's scheduler code creates such triggers, for tasks that start from their trigger.
    """
    if ids:
        session.execute(
            update(Trigger).where(Trigger.id.in_(ids), Trigger.queue.is_(None)).values(queue=TRIGGER_QUEUE)
        )
