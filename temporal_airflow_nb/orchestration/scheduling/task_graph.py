"""The tasks that a change of one task can affect, built once per version of a DAG.

A pass evaluates no other task: without an edge that is needed, a task starts late; an edge too many only costs time.
The edges are those that Airflow's ``TriggerRuleDep`` and its expansion of mapped tasks use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, TypeAlias

from airflow.serialization.definitions.mappedoperator import is_mapped

if TYPE_CHECKING:
    from airflow.serialization.definitions.baseoperator import SerializedBaseOperator
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.serialization.definitions.mappedoperator import SerializedMappedOperator

    _Task: TypeAlias = SerializedBaseOperator | SerializedMappedOperator

# Under these rules, the success of one upstream task changes nothing while another upstream task is unfinished.
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
    The dependencies between tasks that Airflow's checks of trigger rules, setups and mapping use.

    Attributes
    ----------
    depends_on
        task id → ids of the tasks whose states decide whether it may run.
    affects
        The reverse: task id → ids of the tasks to evaluate when it has changed.
    next_run_dependents
        task id → ids of the tasks in the next run that depend on it.
    order
        task id → its position in topological order.
    """

    def __init__(self, dag: SerializedDAG) -> None:
        tasks = dag.task_dict
        has_setups = any(task.is_setup or task.is_teardown for task in tasks.values())
        self.depends_on = {
            task_id: frozenset(_dependencies_of(task, has_setups)) for task_id, task in tasks.items()
        }
        affects = defaultdict(set)
        for task_id, upstream in self.depends_on.items():
            for other in upstream:
                affects[other].add(task_id)
        self.next_run_dependents = _next_run_dependents(tasks)
        upstream_first = TopologicalSorter(
            {task_id: sorted(task.upstream_task_ids) for task_id, task in tasks.items()}
        )
        self.order = {task_id: position for position, task_id in enumerate(upstream_first.static_order())}
        self.affects = {
            task_id: tuple(sorted(ids, key=self.order.__getitem__)) for task_id, ids in affects.items()
        }
        self._joins = {
            task_id: sorted(task.upstream_task_ids, key=self.order.__getitem__, reverse=True)
            for task_id, task in tasks.items()
            if _waits_for_all(task, tasks)
        }
        self._groups = {task_id: _mapped_group(task) for task_id, task in tasks.items()}

    def waits_for(self, task_id: str) -> list[str]:
        """Return the upstream tasks, last first, of a task whose trigger rule needs all of them.

        While one of them is unfinished, the success of another changes nothing for ``task_id``.
        """
        return self._joins.get(task_id, [])

    def same_instance(self, changed: str, concerned: str) -> bool:
        """Return whether map index *i* of ``changed`` affects only map index *i* of ``concerned``."""
        group = self._groups[concerned]
        return group is not None and group == self._groups[changed]


def get_graph(dag: SerializedDAG) -> TaskGraph:
    """Return the graph of ``dag``, built at the first call for this version."""
    # Kept on the DAG object: it lives as long as the cached version of the DAG that it belongs to. Threads share the
    # object without a lock; at worst, two of them build the same graph.
    graph: TaskGraph | None = getattr(dag, "_temporal_airflow_graph", None)
    if graph is None:
        graph = TaskGraph(dag)
        dag._temporal_airflow_graph = graph
    return graph


def _dependencies_of(task: _Task, has_setups: bool) -> set[str]:
    found = set(task.upstream_task_ids)
    if is_mapped(task):
        found |= {operator.task_id for operator in task.iter_mapped_dependencies()}
    for group in task.iter_mapped_task_groups():
        found |= {operator.task_id for operator in group.iter_mapped_dependencies()}
    if not has_setups:
        return found
    # Airflow's `TriggerRuleDep` evaluates setups that aren't direct upstreams as well.
    if not task.is_teardown:
        return found | {setup.task_id for setup in task.get_upstreams_only_setups()}
    upstream = task.get_flat_relative_ids(upstream=True)
    for setup in (other for other in task.upstream_list if other.is_setup):
        found |= upstream & setup.get_flat_relative_ids(upstream=False)
    return found


def _next_run_dependents(tasks: Mapping[str, _Task]) -> dict[str, list[str]]:
    dependents = defaultdict(set)
    for task_id, task in tasks.items():
        if task.depends_on_past:
            dependents[task_id].add(task_id)
        if task.wait_for_downstream:
            for below in task.downstream_task_ids:
                dependents[below].add(task_id)
    return {task_id: sorted(others) for task_id, others in dependents.items()}


def _waits_for_all(task: _Task, tasks: Mapping[str, _Task]) -> bool:
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


def _mapped_group(task: _Task) -> str | None:
    """Return the mapped group around a task; None without one, with nested ones, and for a mapped task."""
    # Only with a single group do the map indexes of its tasks correspond.
    groups = list(task.iter_mapped_task_groups())
    return groups[0].group_id if len(groups) == 1 and not is_mapped(task) else None
