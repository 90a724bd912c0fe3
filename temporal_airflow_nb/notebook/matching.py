"""Whether a value is what a statement of an executed cell gave: a name may have been given another one since."""

from __future__ import annotations

import ast
import sys
import types
from typing import Any

from temporal_airflow_nb.notebook.history import Definition
from temporal_airflow_nb.notebook.values import Imported

_MISSING = object()


def imported(definition: Definition, value: Any, *, is_last: bool) -> Imported | None:
    """Return an import as it was executed, if it gave the value."""
    node, alias, name = definition.binding.node, definition.binding.alias, definition.binding.name
    assert alias is not None
    if isinstance(node, ast.Import):
        module = sys.modules.get(alias.name if alias.asname else name)
        return Imported(alias.name, None, name) if module is value else None
    if not isinstance(node, ast.ImportFrom) or not node.module or node.level:
        return None
    needed = Imported(node.module, alias.name, name)
    module = sys.modules.get(node.module)
    if (
        getattr(module, alias.name, _MISSING) is value
        or sys.modules.get(f"{node.module}.{alias.name}") is value
    ):
        return needed
    # A module that was edited and loaded again has another object under that name.
    came_from = str(getattr(value, "__module__", "")).split(".")[0]
    return needed if is_last and came_from == node.module.split(".")[0] else None


def is_function_of(definition: Definition, value: Any, name: str) -> bool:
    """Return whether a function is the one of this definition, as far as what is compiled tells."""
    if not isinstance(value, types.FunctionType) or value.__code__.co_filename == "<string>":
        return False
    code = value.__code__
    node = definition.binding.node
    line = definition.first
    arguments: ast.arguments
    if name == "<lambda>":
        expression: Any = node.value  # type: ignore[attr-defined]
        line, arguments = expression.lineno, expression.args
    else:
        arguments = node.args  # type: ignore[attr-defined]
    named = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    count = code.co_argcount + code.co_kwonlyargcount
    return (
        value.__module__ == "__main__"
        and code.co_name == name
        and code.co_firstlineno == line
        and list(code.co_varnames[:count]) == named
        and _names_in(node) >= set(code.co_names)
    )


def _names_in(node: ast.AST) -> set[str]:
    found: set[str] = set()
    for child in ast.walk(node):
        for attribute in ("id", "attr", "name", "module", "asname"):
            if isinstance(text := getattr(child, attribute, None), str):
                found |= {text, *text.split(".")}
    return found


def is_class_of(definition: Definition, value: Any) -> bool:
    """Return whether a class is the one of this definition; before Python 3.13 its name has to do."""
    if not isinstance(value, type) or value.__module__ != "__main__":
        return False
    line = getattr(value, "__firstlineno__", definition.first)
    return value.__qualname__ == definition.binding.name and line == definition.first
