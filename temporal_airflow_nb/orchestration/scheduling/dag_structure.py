"""The structure of a DAG: its groups, tasks and edges, in the order of Airflow's grid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.core_api.services.ui.task_group import get_task_group_children_getter
from airflow.serialization.definitions.mappedoperator import is_mapped
from airflow.serialization.definitions.taskgroup import SerializedTaskGroup

from temporal_airflow_nb.messages.grid import Edges, Node
from temporal_airflow_nb.orchestration.workflow.grid_encoding import build_node

if TYPE_CHECKING:
    from airflow.serialization.definitions.dag import SerializedDAG

_MAX_DOC_LENGTH = 2_000


def get_structure(dag: SerializedDAG) -> Edges:
    """
    Return the nodes and edges of a DAG, built at the first call for this version.

    Callers must not change the result. ``nodes`` lists a group before its members, and the members of a group together;
    ``edges`` are ``[upstream task_id, downstream task_id]``.
    """
    # Kept on the DAG object: it lives as long as the cached version of the DAG that it belongs to. Threads share the
    # object without a lock; at worst, two of them build the same value.
    structure: Edges | None = getattr(dag, "_temporal_airflow_structure", None)
    if structure is None:
        groups = dag.task_group.get_task_group_dict()
        nodes = list(_list_members(dag.task_group, None, False, groups))
        edges = [
            [task_id, below] for task_id, task in dag.task_dict.items() for below in task.downstream_task_ids
        ]
        structure = {"nodes": nodes, "edges": sorted(edges)}
        dag._temporal_airflow_structure = structure
    return structure


def _list_members(group: Any, parent: str | None, mapped: bool, groups: Any) -> Iterator[Node]:
    # Private part of Airflow's API server: it sorts as `[api] grid_view_sorting_order` says, like Airflow's own grid.
    for child in get_task_group_children_getter()(group, groups):
        if not isinstance(child, SerializedTaskGroup):
            yield _task_node(child, parent, mapped)
            continue
        is_in_mapped_group = mapped or is_mapped(child)
        yield build_node(
            child.group_id,
            child.group_display_name or child.label,
            parent,
            kind="group",
            mapped=is_in_mapped_group,
            doc=_shorten(child.doc_md or child.tooltip),
        )
        yield from _list_members(child, child.group_id, is_in_mapped_group, groups)


def _task_node(task: Any, parent: str | None, mapped: bool) -> Node:
    return build_node(
        task.task_id,
        task.task_display_name if task.task_display_name != task.task_id else task.label,
        parent,
        operator=task.operator_name,
        mapped=mapped or is_mapped(task),
        trigger_rule=str(getattr(task.trigger_rule, "value", task.trigger_rule)),
        retries=task.retries or 0,
        setup=bool(task.is_setup),
        teardown=bool(task.is_teardown),
        doc=_shorten(task.doc_md or getattr(task, "doc", None)),
    )


def _shorten(text: str | None) -> str | None:
    return text[:_MAX_DOC_LENGTH] if text else None
