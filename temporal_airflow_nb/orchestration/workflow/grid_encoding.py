"""The shapes that all sources of a run's grid share, and how they travel through Temporal. No Airflow is needed."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from temporal_airflow_nb.messages.grid import Edges, Node

ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States in which a task instance stays."""


def node(node_id: str, label: str, parent: str | None, **known: Any) -> Node:
    """Return a group or task of a structure."""
    blank: Node = {
        "id": node_id,
        "label": label,
        "kind": "task",
        "parent": parent,
        "operator": None,
        "mapped": False,
        "trigger_rule": None,
        "retries": 0,
        "setup": False,
        "teardown": False,
        "doc": None,
    }
    return cast("Node", {**blank, **known})


def flat_structure(operators: Iterable[tuple[str, str | None]]) -> Edges:
    """Return the structure of a DAG of which no more is known than its tasks and their operators."""
    nodes = [node(task_id, task_id, None, operator=operator) for task_id, operator in operators]
    return {"nodes": nodes, "edges": []}


def packed(value: Any) -> str:
    """Return JSON-able data as a short text.

    >>> unpacked(packed([["a", -1, None]]))
    [['a', -1, None]]
    """
    text = json.dumps(value, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 3)).decode()


def unpacked(text: str) -> Any:
    """Return what :func:`packed` was given."""
    return json.loads(zlib.decompress(base64.b64decode(text)))
