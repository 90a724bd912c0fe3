"""The structure of a DAG, its nodes and edges, from Airflow's REST API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from graphlib import TopologicalSorter
from typing import Final

from temporal_airflow_nb.client.rest.http import ApiObject
from temporal_airflow_nb.messages.grid import Edges, Node

_DOC: Final = 2_000


def structure_of(tasks: Sequence[ApiObject], grid: Sequence[ApiObject] | None) -> Edges:
    """Return the structure of a DAG.

    Parameters
    ----------
    tasks
        The DAG's tasks, from the public API.
    grid
        Groups and order, from the API of Airflow's own grid; None if Airflow doesn't have this API.
    """
    known = {task["task_id"]: task for task in tasks}
    nodes: list[Node] = []

    def add(children: Iterable[ApiObject], parent: str | None) -> None:
        for child in children:
            if child["id"] in known:
                nodes.append(_task_node(known[child["id"]], child, parent))
            elif child.get("children"):
                nodes.append(_group_node(child, parent))
                add(child["children"], child["id"])

    edges = sorted(
        [task_id, below] for task_id, task in known.items() for below in task["downstream_task_ids"] or ()
    )
    if grid is None:
        order = topological(known, edges)
        grid = [{"id": task_id, "label": known[task_id]["task_display_name"]} for task_id in order]
    add(grid, None)
    return {"nodes": nodes, "edges": edges}


def topological(node_ids: Iterable[str], edges: Iterable[Sequence[str]]) -> list[str]:
    """Return the ids of nodes, those of tasks in an order in which they can run."""
    above: dict[str, list[str]] = {node_id: [] for node_id in node_ids}
    for task_id, below in edges:
        above.setdefault(below, []).append(task_id)
    return list(TopologicalSorter(above).static_order())


def _task_node(task: ApiObject, shown: ApiObject, parent: str | None) -> Node:
    doc = task.get("doc_md")
    return {
        "id": task["task_id"],
        "label": shown["label"],
        "kind": "task",
        "parent": parent,
        "operator": task["operator_name"],
        "mapped": bool(shown.get("is_mapped") or task["is_mapped"]),
        "trigger_rule": task["trigger_rule"],
        "retries": int(task["retries"] or 0),
        "setup": shown.get("setup_teardown_type") == "setup",
        "teardown": shown.get("setup_teardown_type") == "teardown",
        "doc": doc[:_DOC] if doc else None,
    }


def _group_node(group: ApiObject, parent: str | None) -> Node:
    return {
        "id": group["id"],
        "label": group["label"],
        "kind": "group",
        "parent": parent,
        "operator": None,
        "mapped": bool(group.get("is_mapped")),
        "trigger_rule": None,
        "retries": 0,
        "setup": False,
        "teardown": False,
        "doc": group.get("doc_md"),
    }
