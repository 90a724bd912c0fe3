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

MAX_UNPACKED = 32 * 2**20
"""Bytes of JSON. A grid of 100,000 task instances with their times and a former try takes 14 MB."""

MAX_UNPACKED_PARTS = 1_000_000
"""Lists and objects. In Python, each takes much more memory than the two bytes that it may take in JSON."""

ENDED_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""The final states of a task instance."""


class UnreadableGridError(Exception):
    """A packed grid is damaged or too large."""


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
    return _compress(json.dumps(value, separators=(",", ":")))


def _is_readable(text: str) -> bool:
    return len(text) <= MAX_UNPACKED and text.count("[") + text.count("{") <= MAX_UNPACKED_PARTS


def _compress(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 3)).decode()


def pack_within(value: Any, limit: int) -> str | None:
    """Return ``pack(value)``; None if that has more than ``limit`` characters, or :func:`unpack` would refuse it."""
    text = json.dumps(value, separators=(",", ":"))
    packed = _compress(text) if _is_readable(text) else None
    return packed if packed is not None and len(packed) <= limit else None


def unpack(text: str) -> Any:
    """
    Return the data that :func:`pack` was called with.

    Raises
    ------
    UnreadableGridError
        The text isn't packed data, or it stands for more than :data:`MAX_UNPACKED` bytes or
        :data:`MAX_UNPACKED_PARTS` parts. Whoever may write to Temporal can write such a text, and a short one can stand
        for gigabytes.
    """
    try:
        packed = zlib.decompressobj()
        data = packed.decompress(base64.b64decode(text, validate=True), MAX_UNPACKED)
        if packed.unconsumed_tail or not packed.eof or packed.unused_data:
            raise UnreadableGridError(
                f"A packed grid is incomplete, or has more than {MAX_UNPACKED:,} bytes."
            )
        unpacked = data.decode()
        if not _is_readable(unpacked):
            raise UnreadableGridError(f"A packed grid has more than {MAX_UNPACKED_PARTS:,} parts.")
        return json.loads(unpacked)
    except (zlib.error, ValueError, RecursionError) as error:
        raise UnreadableGridError(f"A packed grid can't be read: {error}") from None
