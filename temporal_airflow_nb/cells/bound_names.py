"""Find the names that Python source binds."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

How = Literal["import", "def", "class", "assign", "other"]

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Binding:
    """A statement that gives a name a value.

    Attributes
    ----------
    name : str
        The name.
    how : str
        ``"import"``, ``"def"``, ``"class"``, ``"assign"`` (``name = …``, nothing else), or ``"other"``.
    node : ast.stmt
        The statement.
    alias : ast.alias or None
        For an import, the imported name within the statement.
    """

    name: str
    how: How
    node: ast.stmt
    alias: ast.alias | None = None


def has_star_import(tree: ast.AST) -> bool:
    """Return whether source contains a ``from … import *``."""
    return any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in ast.walk(tree))


def find_bindings(body: Iterable[ast.stmt]) -> Iterator[Binding]:
    """Yield the bindings of a block, including its compound statements, in the order of the source.

    >>> [(b.name, b.how) for b in find_bindings(ast.parse("import os.path as p\\nfor i, j in x: n = i").body)]
    [('p', 'import'), ('i', 'other'), ('j', 'other'), ('n', 'assign')]
    """
    for node in body:
        yield from _find_in_statement(node)


def _find_in_statement(node: ast.stmt) -> Iterator[Binding]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for alias in node.names:
            name = alias.asname or (alias.name.split(".")[0] if isinstance(node, ast.Import) else alias.name)
            yield Binding(name, "import", node, alias)
        return
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield Binding(node.name, "class" if isinstance(node, ast.ClassDef) else "def", node)
        return
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        assigned_name: str | None = node.targets[0].id
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        assigned_name = node.target.id
    else:
        assigned_name = None
    if isinstance(node, ast.AnnAssign) and node.value is None:
        return
    blocks: list[ast.stmt] = []
    for child in _direct_children(node):
        if isinstance(child, ast.stmt):
            blocks.append(child)
        else:
            for name in find_bound_names(child):
                yield Binding(name, "assign" if name == assigned_name else "other", node)
    yield from find_bindings(blocks)


def _direct_children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the expressions of a statement and the statements of its blocks."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ExceptHandler, ast.match_case)):
            if isinstance(child, ast.ExceptHandler) and child.name:
                yield ast.Name(id=child.name, ctx=ast.Store())
            yield from _direct_children(child)
        else:
            yield child


def find_bound_names(expression: ast.AST) -> Iterator[str]:
    """Yield the names that an expression or a pattern binds in the enclosing scope."""
    if isinstance(expression, ast.Name):
        if isinstance(expression.ctx, ast.Store):
            yield expression.id
        return
    if isinstance(expression, FUNCTIONS):
        return
    if isinstance(expression, _COMPREHENSIONS):
        # Only an assignment expression in a comprehension binds a name outside of it.
        for child in ast.walk(expression):
            if isinstance(child, ast.NamedExpr) and isinstance(child.target, ast.Name):
                yield child.target.id
        return
    if isinstance(expression, (ast.MatchAs, ast.MatchStar)) and expression.name:
        yield expression.name
    if isinstance(expression, ast.MatchMapping) and expression.rest:
        yield expression.rest
    for child in ast.iter_child_nodes(expression):
        yield from find_bound_names(child)
