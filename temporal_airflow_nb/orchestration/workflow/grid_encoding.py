"""The structure of a DAG as all grids use it, and the packing of grids for Temporal. It needs no Airflow."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from typing import Any

ENDED_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""The final states of a task instance."""


def build_node(node_id: str, label: str, parent: str | None, **known: Any) -> dict[str, Any]:
    """Return a group or task of a structure, with the values of ``known``."""
    defaults = {
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
    return {**defaults, **known}


def build_flat_structure(operators: Iterable[tuple[str, str | None]]) -> dict[str, Any]:
    """Return the structure of a DAG of which only the tasks and their operators are known."""
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
