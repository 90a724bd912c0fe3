"""Answers about a stack itself: its versions, its queues, its schedules."""

from __future__ import annotations

from typing import TypedDict


class _Version(TypedDict):
    airflow: str


class Pong(_Version, total=False):
    """Airflow's version, and the process id of the gateway if a gateway answers."""

    pid: int


class Queues(TypedDict):
    """The number of tasks that wait in each queue, and the queues that no worker serves."""

    waiting: dict[str, int]
    unserved: list[str]


class Schedules(TypedDict):
    """Why DAGs have no Temporal Schedule, by DAG id, and a sentence about all of them."""

    unscheduled: dict[str, str]
    report: str
