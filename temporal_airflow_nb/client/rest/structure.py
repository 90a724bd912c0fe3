"""A DAG's nodes and edges, as Airflow's REST API tells them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter
from typing import Any, Final

_DOC: Final = 2_000


def structure_of(tasks: list[Mapping[str, Any]], grid: list[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return a DAG's structure from its tasks and, for groups and order, from what Airflow's own grid is made of."""
    known = {task["task_id"]: task for task in tasks}
    nodes: list[dict[str, Any]] = []

    def add(children: Iterable[Mapping[str, Any]], parent: str | None) -> None:
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
        order = topological({"nodes": [{"id": task_id} for task_id in known], "edges": edges})
        grid = [{"id": task_id, "label": known[task_id]["task_display_name"]} for task_id in order]
    add(grid, None)
    return {"nodes": nodes, "edges": edges}


def topological(structure: Mapping[str, Any]) -> list[str]:
    """Return the ids of a structure's nodes, those of tasks in an order in which these can run."""
    above: dict[str, list[str]] = {node["id"]: [] for node in structure.get("nodes", ())}
    for task_id, below in structure.get("edges", ()):
        above.setdefault(below, []).append(task_id)
    return list(TopologicalSorter(above).static_order())


def _task_node(task: Mapping[str, Any], shown: Mapping[str, Any], parent: str | None) -> dict[str, Any]:
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


def _group_node(group: Mapping[str, Any], parent: str | None) -> dict[str, Any]:
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
