"""Answers about runs: snapshots, rows of lists, and results of actions."""

from __future__ import annotations

from typing import Any, TypedDict

Links = dict[str, str]
"""Addresses of a run in UIs, by the UI's name."""


class TaskRow(TypedDict):
    """A task instance. Times are ISO 8601 in UTC, durations seconds."""

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    max_tries: int
    operator: str | None
    start_date: str | None
    end_date: str | None
    duration: float | None
    queued_dttm: str | None
    pool: str | None
    label: str | None
    group: str | None


class RunSnapshot(TypedDict):
    """A run with all its task instances, in an order in which they can run.

    ``version`` changes whenever the run or a task instance does.
    """

    dag_id: str
    run_id: str
    workflow_id: str
    state: str
    start_date: str | None
    end_date: str | None
    version: str
    airflow_state_counts: dict[str, int]
    tasks: list[TaskRow]
    links: Links


class RunRow(TypedDict):
    """A run in a list."""

    dag_id: str
    run_id: str
    workflow_id: str
    state: str
    run_type: str | None
    start_date: str | None
    end_date: str | None


class RunList(TypedDict):
    """Runs, the newest first."""

    runs: list[RunRow]


class Triggered(TypedDict):
    """A run that was created of a DAG that Airflow knows already."""

    dag_id: str
    run_id: str
    workflow_id: str


class ActionResult(TypedDict):
    """A run after an action, and the task ids and map indexes of the instances that it changed."""

    dag_id: str
    run_id: str
    state: str
    affected: list[tuple[str, int]]


class HumanAnswer(TypedDict, total=False):
    """An answer to a task as Airflow has recorded it."""

    responded_by: Any
    responded_at: str
    chosen_options: list[str]
    params_input: Any
