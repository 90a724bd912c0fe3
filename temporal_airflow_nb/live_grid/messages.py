"""The messages between a live grid and its page, except the answers of the stack, which pass through unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

Row = Mapping[str, Any]
"""A run, a task instance or a node of the structure, as the stack reports it."""

Answer = Mapping[str, Any]
"""An answer of the stack to a poll: everything, or the changes since the last answer."""

Delta = dict[str, Any]
"""A change for the page: ``type`` is ``"full"`` or ``"delta"``; a delta has ``seq`` and the parts of the answer."""

Request = Mapping[str, Any]
"""A request of the page: ``id``, ``op``, and the arguments of the operation."""

Cells = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Numbers of task instances, by run id, task id and state."""


class StateStyleData(TypedDict):
    """The style of a state."""

    color: str
    sign: str
    words: str


class GridData(TypedDict):
    """The part of the full state that the stack reports."""

    seq: int
    dag_id: str
    run_id: str
    workflow_id: str
    links: Mapping[str, str]
    now: str | None
    structure: Row
    runs: list[Row]
    tasks: list[Row]
    cells: Cells
    state_styles: Mapping[str, StateStyleData]
    state_order: list[str]


class Connection(TypedDict):
    """Whether the kernel reaches the stack, and what to show if not."""

    ok: bool
    text: str


class FullState(GridData):
    """The full state of a page."""

    connection: Connection
    production: str | None
    can_act: bool
    refused: Mapping[str, str]
    follows: bool
