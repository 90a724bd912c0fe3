"""The messages between a live grid and its page.

The parts that the stack reports pass through unchanged; :mod:`temporal_airflow_nb.messages.grid` describes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from temporal_airflow_nb.messages.grid import Counts, GridRun, GridTask, Structure

Delta = dict[str, Any]
"""A change for the page: ``type`` is ``"full"`` or ``"delta"``; a delta has ``seq`` and the parts of the answer."""

Request = Mapping[str, Any]
"""A request of the page: ``id``, ``op``, and the arguments of the operation."""


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
    structure: Structure | None
    runs: list[GridRun]
    tasks: list[GridTask]
    cells: Mapping[str, Mapping[str, Counts]]
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
