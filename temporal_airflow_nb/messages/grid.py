"""Answers of the operation ``get_grid_changes``: a DAG's latest runs, and the task instances of one of them."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from temporal_airflow_nb.messages.runs import Links, TaskRow

TaskKey = tuple[str, int]
"""A task id and a map index."""

Counts = dict[str, int]
"""The number of task instances in each state."""


class Node(TypedDict):
    """A task or a task group of a DAG."""

    id: str
    label: str
    kind: Literal["task", "group"]
    parent: str | None
    operator: str | None
    mapped: bool
    trigger_rule: str | None
    retries: int
    setup: bool
    teardown: bool
    doc: str | None


class Edges(TypedDict):
    """Tasks and groups of a DAG, a group before its members, and pairs of task ids, upstream first."""

    nodes: list[Node]
    edges: list[list[str]]


class Structure(Edges):
    """A version of a DAG; ``version`` is None if no version is known."""

    version: int | None


class GridRun(TypedDict):
    """A run in a grid. ``version`` is that of the DAG."""

    run_id: str
    state: str
    run_type: str | None
    start_date: str | None
    end_date: str | None
    queued_at: str | None
    logical_date: str | None
    run_after: str | None
    version: int | None
    note: str | None


FormerTry = list[Any]
"""``[try_number, state, queued_dttm, start_date, end_date]`` of a try before the latest."""


class GridTask(TaskRow):
    """A task instance in a grid, with its former tries."""

    tries: list[FormerTry]


class GridNews(TypedDict):
    """The changes themselves, all empty if there are none.

    ``structure`` is None if it hasn't changed, ``removed`` holds task id and map index of task instances that are
    gone, ``cells`` the counts of states of other runs by run id and task id, ``dropped`` the ids of runs that are no
    longer among the latest.
    """

    structure: Structure | None
    tasks: list[GridTask]
    removed: list[list[Any]]
    cells: dict[str, dict[str, Counts]]
    dropped: list[str]


class GridChanges(GridNews):
    """The changes of a grid after a cursor, or the whole grid if ``full``.

    ``cursor`` names the state that the answer leads to. ``runs`` always holds the run in focus.
    """

    cursor: str
    full: bool
    now: str
    dag_id: str
    run_id: str
    workflow_id: str
    links: Links
    runs: list[GridRun]
