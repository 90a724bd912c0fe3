"""Find duplicate task ids, cycles, and branches that choose tasks wrongly.

``preflight`` calls :func:`check` in the kernel, with the syntax tree of a cell; nothing of it is executed. Branches are
checked only if the source shows the whole graph of the DAG, because a finding has to be certain.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from temporal_airflow_nb.checks.finding import Finding
from temporal_airflow_nb.checks.syntax import dotted, text_of
from temporal_airflow_nb.checks.tasks import Body, Function, bodies


def check(tree: ast.Module) -> Iterator[Finding]:
    """Find errors in the graphs of the DAGs."""
    for body in bodies(tree):
        yield from _duplicates(body)
        yield from _cycle(body)
        if body.complete:
            yield from _branches(body)


def _duplicates(body: Body) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for task_id, line in body.explicit:
        if task_id in first:
            yield Finding(
                "error",
                "duplicate-task-id",
                f"Two tasks have the task_id {task_id!r}; the other one is in line {first[task_id]}.",
                line,
                "Give one of them another id.",
                dag_id=body.dag_id,
                task_id=task_id,
            )
        first.setdefault(task_id, line)


def _cycle(body: Body) -> Iterator[Finding]:
    for start in sorted(body.edges):
        if start not in body.downstream(start):
            continue
        path = _path_back(body, start)
        names = [body.tasks.get(node) for node in path]
        known = [name for name in names if name is not None]
        last = body.edges[path[-1]][start]
        yield Finding(
            "error",
            "cycle",
            f"The tasks wait for each other: `{' >> '.join([*known, known[0]])}`."
            if known
            else "The tasks wait for each other.",
            last,
            "Remove one of these dependencies.",
            dag_id=body.dag_id,
            task_id=known[0] if known else None,
        )
        return


def _path_back(body: Body, start: int) -> list[int]:
    """Return a shortest path from a node to itself, without its end."""
    waiting = [[start]]
    seen: set[int] = set()
    while waiting:
        path = waiting.pop(0)
        for node in body.edges.get(path[-1], ()):
            if node == start:
                return path
            if node not in seen:
                seen.add(node)
                waiting.append([*path, node])
    return [start]


def _branches(body: Body) -> Iterator[Finding]:
    by_id = {task_id: node for node, task_id in body.tasks.items()}
    for name, function in body.functions.items():
        if not _is_branch(function) or name not in by_id:
            continue
        answers, all_known = _answers(function)
        branch = by_id[name]
        below = body.downstream(branch)
        followed: set[int] = set()
        for task_id, line in answers:
            if task_id not in by_id:
                yield Finding(
                    "error",
                    "unknown-branch",
                    f"`{name}` chooses {task_id!r}, but the DAG has no such task.",
                    line,
                    f"The other tasks are {', '.join(sorted(set(by_id) - {name}))}.",
                    dag_id=body.dag_id,
                    task_id=name,
                )
                return
            node = by_id[task_id]
            followed |= {node, *body.downstream(node)}
            if node not in below:
                yield Finding(
                    "warning",
                    "unreachable-branch",
                    f"`{name}` chooses {task_id!r}, which isn't downstream of it. All tasks that are will be skipped.",
                    line,
                    f"Add the dependency `{name} >> {task_id}`.",
                    dag_id=body.dag_id,
                    task_id=name,
                )
        if not all_known or not answers:
            continue
        for node, line in body.edges.get(branch, {}).items():
            never = body.tasks.get(node)
            if node not in followed and never is not None:
                yield Finding(
                    "warning",
                    "unreachable-branch",
                    f"`{name}` never chooses {never!r}, so that task is always skipped.",
                    line,
                    f"Return its id in `{name}`, or remove the task.",
                    dag_id=body.dag_id,
                    task_id=never,
                )


def _is_branch(function: Function) -> bool:
    return any(
        part.startswith("branch") for decorator in function.decorator_list for part in dotted(decorator)[1:]
    )


def _answers(function: Function) -> tuple[list[tuple[str, int]], bool]:
    """Return the ids that a branching function returns as literals, and whether it returns nothing else."""
    found: list[tuple[str, int]] = []
    all_known = True
    for value in _returned(function.body):
        texts = _texts(value)
        if texts is None:
            all_known = False
        else:
            found += [(text, value.lineno) for text in texts]
    return found, all_known


def _returned(statements: list[ast.stmt]) -> Iterator[ast.expr]:
    for statement in statements:
        if isinstance(statement, ast.Return) and statement.value is not None:
            yield statement.value
        elif not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for block in ("body", "orelse", "finalbody"):
                yield from _returned(getattr(statement, block, []))
            for handler in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
                yield from _returned(handler.body)


def _texts(value: ast.expr) -> list[str] | None:
    """Return the strings that an expression can evaluate to; None if other values are possible."""
    if (text := text_of(value)) is not None:
        return [text]
    if isinstance(value, ast.Constant) and value.value is None:
        return []
    if isinstance(value, (ast.List, ast.Tuple)):
        parts = [_texts(element) for element in value.elts]
    elif isinstance(value, ast.IfExp):
        parts = [_texts(value.body), _texts(value.orelse)]
    else:
        return None
    return None if any(part is None for part in parts) else [t for part in parts if part for t in part]
