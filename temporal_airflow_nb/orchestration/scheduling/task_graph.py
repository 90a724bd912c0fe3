"""Which tasks a change of one task can concern. Built once per version of a DAG."""

from __future__ import annotations

from collections import defaultdict
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from airflow.serialization.definitions.mappedoperator import is_mapped

if TYPE_CHECKING:
    from airflow.serialization.definitions.dag import SerializedDAG

# Under these rules a task isn't touched by one upstream's success while another upstream is unfinished.
_NEEDS_ALL = frozenset(
    {
        "all_success",
        "all_done",
        "none_failed",
        "none_failed_min_one_success",
        "none_skipped",
        "all_done_setup_success",
        "all_done_min_one_success",
    }
)


class TaskGraph:
    """
    The edges that Airflow's dependency checks look along.

    Attributes
    ----------
    sees
        task id → ids of the tasks whose states decide about it.
    seen_by
        The reverse: task id → ids of the tasks to look at when it has changed.
    remembered
        task id → ids of the tasks that look at it from the next run.
    order
        task id → its place in topological order.
    """

    def __init__(self, dag: SerializedDAG) -> None:
        tasks = dag.task_dict
        staged = any(task.is_setup or task.is_teardown for task in tasks.values())
        self.sees = {task_id: frozenset(_seen(task, staged)) for task_id, task in tasks.items()}
        seen_by = defaultdict(set)
        for task_id, upstream in self.sees.items():
            for other in upstream:
                seen_by[other].add(task_id)
        self.remembered = _remembered(tasks)
        upstream_first = TopologicalSorter(
            {task_id: sorted(task.upstream_task_ids) for task_id, task in tasks.items()}
        )
        self.order = {task_id: place for place, task_id in enumerate(upstream_first.static_order())}
        self.seen_by = {
            task_id: tuple(sorted(ids, key=self.order.__getitem__)) for task_id, ids in seen_by.items()
        }
        self._joins = {
            task_id: sorted(task.upstream_task_ids, key=self.order.__getitem__, reverse=True)
            for task_id, task in tasks.items()
            if _waits_for_all(task, tasks)
        }
        self._groups = {task_id: _mapped_group(task) for task_id, task in tasks.items()}

    def waits_for(self, task_id: str) -> list[str]:
        """Return the upstreams, last first, that all have to end before another success matters to ``task_id``."""
        return self._joins.get(task_id, [])

    def same_instance(self, changed: str, concerned: str) -> bool:
        """Return whether instance *i* of one task concerns only instance *i* of the other."""
        group = self._groups[concerned]
        return group is not None and group == self._groups[changed]


def get_graph(dag: SerializedDAG) -> TaskGraph:
    """Return the graph of ``dag``, built at the first call for this version."""
    graph = getattr(dag, "_temporal_airflow_graph", None)
    if graph is None:
        graph = TaskGraph(dag)
        dag._temporal_airflow_graph = graph  # type: ignore[attr-defined]
    return graph


def _seen(task: Any, staged: bool) -> set[str]:
    seen = set(task.upstream_task_ids)
    if is_mapped(task):
        seen |= {operator.task_id for operator in task.iter_mapped_dependencies()}
    for group in task.iter_mapped_task_groups():
        seen |= {operator.task_id for operator in group.iter_mapped_dependencies()}
    if not staged:
        return seen
    if not task.is_teardown:
        return seen | {setup.task_id for setup in task.get_upstreams_only_setups()}
    upstream = task.get_flat_relative_ids(upstream=True)
    for setup in (other for other in task.upstream_list if other.is_setup):
        seen |= upstream & setup.get_flat_relative_ids(upstream=False)
    return seen


def _remembered(tasks: dict[str, Any]) -> dict[str, list[str]]:
    remembered = defaultdict(set)
    for task_id, task in tasks.items():
        if task.depends_on_past:
            remembered[task_id].add(task_id)
        if task.wait_for_downstream:
            for below in task.downstream_task_ids:
                remembered[below].add(task_id)
    return {task_id: sorted(others) for task_id, others in remembered.items()}


def _waits_for_all(task: Any, tasks: dict[str, Any]) -> bool:
    rule = getattr(task.trigger_rule, "value", task.trigger_rule)
    return (
        rule in _NEEDS_ALL
        and not task.is_teardown
        and task.get_closest_mapped_task_group() is None
        and (
            len(task.upstream_task_ids) > 1
            or any(tasks[up].get_needs_expansion() for up in task.upstream_task_ids)
        )
    )


def _mapped_group(task: Any) -> str | None:
    """Return the one mapped group a task is in; None for no group, for nesting, and for a task mapped itself."""
    groups = list(task.iter_mapped_task_groups())
    return groups[0].group_id if len(groups) == 1 and not is_mapped(task) else None
