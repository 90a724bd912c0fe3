"""Read tasks and their dependencies from the source of a DAG.

The reader follows assignments, calls and dependency operators of a DAG's body without executing them. As soon as the
body contains anything else, ``Body.complete`` is false, and checks that need the whole graph don't run.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from temporal_airflow_nb.checks.syntax import dotted, is_dag, keyword, text_of

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Body:
    """The tasks and dependencies in the body of a DAG.

    Attributes
    ----------
    dag_id : str or None
        The id of the DAG, if it is a literal.
    functions : dict of str
        The functions with ``@task``, by name.
    tasks : dict of int
        The ids of the tasks, by node. A node is a call that creates a task.
    explicit : list of tuple
        Ids given to operators, with their lines, if the call is executed exactly once.
    edges : dict of int
        Downstream nodes of each node, with the line of the dependency.
    complete : bool
        Whether the graph has no other tasks and dependencies, which only executing the source would show.
    """

    dag_id: str | None
    functions: dict[str, Function] = field(default_factory=dict)
    tasks: dict[int, str] = field(default_factory=dict)
    explicit: list[tuple[str, int]] = field(default_factory=list)
    edges: dict[int, dict[int, int]] = field(default_factory=dict)
    complete: bool = True

    def downstream(self, start: int) -> set[int]:
        """Return all nodes downstream of a node."""
        found: set[int] = set()
        waiting = [start]
        while waiting:
            for node in self.edges.get(waiting.pop(), ()):
                if node not in found:
                    found.add(node)
                    waiting.append(node)
        return found


def bodies(tree: ast.Module) -> Iterator[Body]:
    """Yield the bodies of the DAGs at the top level of a module."""
    outside = {n.name: n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            decorator = next((d for d in node.decorator_list if is_dag(d, tree)), None)
            if decorator is not None:
                yield _BodyReader(_dag_id(decorator) or node.name, outside).read(node.body)
        elif isinstance(node, ast.With):
            call = next((i.context_expr for i in node.items if is_dag(i.context_expr, tree)), None)
            if call is not None:
                yield _BodyReader(_dag_id(call), outside).read(node.body)


def is_task(function: Function) -> bool:
    """Return whether a function has a ``@task`` decorator."""
    return any("task" in dotted(decorator) for decorator in function.decorator_list)


def _dag_id(call: ast.expr) -> str | None:
    if not isinstance(call, ast.Call):
        return None
    dag_id = call.args[0] if call.args else keyword(call, "dag_id")
    return text_of(dag_id) if dag_id is not None else None


class _BodyReader:
    """Reads the body of one DAG."""

    def __init__(self, dag_id: str | None, outside: dict[str, Function]) -> None:
        self.body = Body(dag_id)
        self.known = {name: function for name, function in outside.items() if is_task(function)}
        self.variables: dict[str, list[int]] = {}
        self.next = 0
        self.counted: Counter[str] = Counter()

    def read(self, statements: list[ast.stmt]) -> Body:
        assigned = Counter(
            node.id
            for s in statements
            for node in ast.walk(s)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )
        self.changing = {name for name, count in assigned.items() if count > 1}
        self.body.functions = self.known
        for statement in statements:
            self._statement(statement)
        return self.body

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                if is_task(node):
                    self.known[node.name] = node
                elif node.decorator_list:
                    self.body.complete = False
            case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.Import() | ast.ImportFrom():
                pass
            case ast.Expr(value=value):
                self._nodes(value)
            case ast.Return(value=value):
                if value is not None:
                    self._nodes(value)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.variables[name] = self._nodes(value)
            case _:
                self.body.complete = False

    def _nodes(self, node: ast.expr) -> list[int]:
        """Return the nodes that an expression evaluates to, and record the tasks and dependencies that it creates."""
        match node:
            case ast.Name(id=name):
                return [] if name in self.changing else self.variables.get(name, [])
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return [task for element in elements for task in self._nodes(element)]
            case ast.BinOp(left=left, op=ast.RShift() | ast.LShift() as way, right=right):
                before, after = self._nodes(left), self._nodes(right)
                self._connect(*((before, after) if isinstance(way, ast.RShift) else (after, before)), node)
                return after
            case ast.Subscript(value=value) | ast.Attribute(value=value):
                return self._nodes(value)
            case ast.Call():
                return self._call(node)
            case ast.Constant():
                return []
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._nodes(child)
        return []

    def _call(self, call: ast.Call) -> list[int]:
        names = dotted(call.func)
        if names == ["chain"]:
            parts = [self._nodes(argument) for argument in call.args]
            for before, after in pairwise(parts):
                self._connect(before, after, call)
            return []
        if names[-1:] in (["set_downstream"], ["set_upstream"]) and isinstance(call.func, ast.Attribute):
            one = self._nodes(call.func.value)
            others = [task for argument in call.args for task in self._nodes(argument)]
            self._connect(*((one, others) if names[-1] == "set_downstream" else (others, one)), call)
            return []
        needed = [task for part in _arguments(call) for task in self._nodes(part)]
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Call):
            needed += [task for part in _arguments(call.func.value) for task in self._nodes(part)]
        if names == ["Label"]:
            return [self._add(call, None, needed)]
        if names and names[0] in self.known and names[1:] in ([], ["expand"], ["partial", "expand"]):
            return [self._add(call, self._function_id(names[0]), needed)]
        if names and (kind := next((n for n in reversed(names) if n[:1].isupper()), None)):
            if not kind.endswith(("Operator", "Sensor")):
                self.body.complete = (
                    self.body.complete and not needed and names[-1] not in ("TaskGroup", "DAG")
                )
                return []
            task_id = self._given_id(call)
            if task_id is None:
                self.body.complete = False
            else:
                self.body.explicit.append((task_id, call.lineno))
            return [self._add(call, task_id, needed)]
        self.body.complete = False
        return [self._add(call, None, needed)]

    def _add(self, call: ast.Call, task_id: str | None, needed: list[int]) -> int:
        self.next += 1
        if task_id is not None:
            self.body.tasks[self.next] = task_id
        self._connect(needed, [self.next], call)
        return self.next

    def _connect(self, before: list[int], after: list[int], node: ast.expr) -> None:
        for one in before:
            for other in after:
                self.body.edges.setdefault(one, {}).setdefault(other, node.lineno)

    def _function_id(self, name: str) -> str | None:
        call = next((d for d in self.known[name].decorator_list if isinstance(d, ast.Call)), None)
        given = keyword(call, "task_id") if call is not None else None
        task_id = name if given is None else text_of(given)
        if task_id is None:
            self.body.complete = False
            return None
        self.counted[task_id] += 1
        count = self.counted[task_id]
        return task_id if count == 1 else f"{task_id}__{count - 1}"

    def _given_id(self, call: ast.Call) -> str | None:
        calls = [call]
        while isinstance(calls[-1].func, ast.Attribute) and isinstance(calls[-1].func.value, ast.Call):
            calls.append(calls[-1].func.value)
        given = [value for one in calls if (value := keyword(one, "task_id")) is not None]
        return text_of(given[0]) if given else None


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(argument.value for argument in call.keywords)]
