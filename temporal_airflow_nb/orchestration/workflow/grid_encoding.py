"""The structure of a DAG as all grids use it, and the packing of grids.

It imports neither Airflow nor Temporal: activities, workflows and the clients in a notebook use it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from temporal_airflow_nb.messages.grid import Edges, Node

ENDED_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""The final states of a task instance."""


def build_node(
    node_id: str,
    label: str,
    parent: str | None,
    *,
    kind: Literal["task", "group"] = "task",
    operator: str | None = None,
    mapped: bool = False,
    trigger_rule: str | None = None,
    retries: int = 0,
    setup: bool = False,
    teardown: bool = False,
    doc: str | None = None,
) -> Node:
    """Return a task, or with ``kind="group"`` a group, of a structure."""
    return {
        "id": node_id,
        "label": label,
        "kind": kind,
        "parent": parent,
        "operator": operator,
        "mapped": mapped,
        "trigger_rule": trigger_rule,
        "retries": retries,
        "setup": setup,
        "teardown": teardown,
        "doc": doc,
    }


def build_flat_structure(operators: Iterable[tuple[str, str | None]]) -> Edges:
    """Return the structure of a DAG whose tasks and operators alone are known."""
    nodes = [build_node(task_id, task_id, None, operator=operator) for task_id, operator in operators]
    return {"nodes": nodes, "edges": []}


def pack(value: Any) -> str:
    """Return data that JSON can hold as a short text.

    >>> unpack(pack([["a", -1, None]]))
    [['a', -1, None]]
    """
    text = json.dumps(value, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 3)).decode()


def unpack(text: str) -> Any:
    """Return the data that :func:`pack` was called with."""
    return json.loads(zlib.decompress(base64.b64decode(text)))
