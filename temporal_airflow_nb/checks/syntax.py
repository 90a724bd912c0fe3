"""Read names and literals from a syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from typing import Any


def dotted(expression: ast.expr) -> list[str]:
    """Return the names of a dotted expression or of a call's function, else an empty list.

    >>> dotted(ast.parse("sdk.task.branch(retries=1)", mode="eval").body)
    ['sdk', 'task', 'branch']
    """
    if isinstance(expression, ast.Call):
        return dotted(expression.func)
    if isinstance(expression, ast.Attribute):
        owner = dotted(expression.value)
        return [*owner, expression.attr] if owner else []
    return [expression.id] if isinstance(expression, ast.Name) else []


def literal(expression: ast.expr) -> Any:
    """Return the value of a constant; None for other expressions."""
    return expression.value if isinstance(expression, ast.Constant) else None


def text_of(expression: ast.expr) -> str | None:
    """Return the value of a string literal; None for other expressions."""
    return value if isinstance(value := literal(expression), str) else None


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """Return the value of a keyword argument of a call."""
    return next((argument.value for argument in call.keywords if argument.arg == name), None)


def imported_as(tree: ast.Module, module: str, attribute: str) -> set[str]:
    """Return the names under which an attribute of a module, or of a submodule, was imported.

    >>> imported_as(ast.parse("from airflow.decorators import dag as flow"), "airflow", "dag")
    {'flow'}
    """
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{module}.")
        for alias in node.names
        if alias.name == attribute
    }


def is_dag(expression: ast.expr, tree: ast.Module) -> bool:
    """Return whether a decorator or a call is Airflow's ``dag`` or ``DAG``."""
    names = dotted(expression)
    return bool(names) and names[-1] in _dag_names(tree)


# Trees are compared by identity. The cache is small, because it keeps its trees in memory.
@lru_cache(maxsize=2)
def _dag_names(tree: ast.Module) -> set[str]:
    return {"dag", "DAG"} | imported_as(tree, "airflow", "dag") | imported_as(tree, "airflow", "DAG")


def executed_at_once(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield the nodes that are executed together with a block, so not the bodies of its functions."""
    for statement in body:
        yield from _walk_executed(statement)


def _walk_executed(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.If) and "__name__" in ast.dump(node.test):
        return
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        children: Iterator[ast.AST] = iter([*node.decorator_list, *node.args.defaults])
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from _walk_executed(child)
