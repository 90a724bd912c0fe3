"""What a DAG looks like: its groups, tasks and edges, in the order in which Airflow's grid has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.core_api.services.ui.task_group import get_task_group_children_getter
from airflow.serialization.definitions.mappedoperator import is_mapped
from airflow.serialization.definitions.taskgroup import SerializedTaskGroup

from temporal_airflow_nb.messages.grid import Edges, Node
from temporal_airflow_nb.orchestration.workflow.grid_encoding import node

if TYPE_CHECKING:
    from airflow.serialization.definitions.dag import SerializedDAG

_DOC = 2_000


def structure_of(dag: SerializedDAG) -> Edges:
    """Return the nodes and edges of a DAG; made at the first call for this version, and not to be changed.

    ``nodes`` holds a group before its members, and the members of a group together; ``edges`` are
    ``[upstream task_id, downstream task_id]``.
    """
    structure: Edges | None = getattr(dag, "_temporal_airflow_structure", None)
    if structure is None:
        groups = dag.task_group.get_task_group_dict()
        nodes = list(_members(dag.task_group, None, False, groups))
        edges = [
            [task_id, below] for task_id, task in dag.task_dict.items() for below in task.downstream_task_ids
        ]
        structure = {"nodes": nodes, "edges": sorted(edges)}
        dag._temporal_airflow_structure = structure  # type: ignore[attr-defined]
    return structure


def _members(group: Any, parent: str | None, mapped: bool, groups: Any) -> Iterator[Node]:
    for child in get_task_group_children_getter()(group, groups):
        if not isinstance(child, SerializedTaskGroup):
            yield _task(child, parent, mapped)
            continue
        inside = mapped or is_mapped(child)
        yield node(
            child.group_id,
            child.group_display_name or child.label,
            parent,
            kind="group",
            mapped=inside,
            doc=_doc(child.doc_md or child.tooltip),
        )
        yield from _members(child, child.group_id, inside, groups)


def _task(task: Any, parent: str | None, mapped: bool) -> Node:
    return node(
        task.task_id,
        task.task_display_name if task.task_display_name != task.task_id else task.label,
        parent,
        operator=task.operator_name,
        mapped=mapped or is_mapped(task),
        trigger_rule=str(getattr(task.trigger_rule, "value", task.trigger_rule)),
        retries=task.retries or 0,
        setup=bool(task.is_setup),
        teardown=bool(task.is_teardown),
        doc=_doc(task.doc_md or getattr(task, "doc", None)),
    )


def _doc(text: str | None) -> str | None:
    return text[:_DOC] if text else None
