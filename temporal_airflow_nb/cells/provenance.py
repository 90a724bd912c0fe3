"""Decide whether a value comes from a statement of an executed cell.

The name may have another value by now, so its present value is compared with what each statement would give.
"""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Iterator
from typing import Any

from temporal_airflow_nb.cells.cell_history import Definition
from temporal_airflow_nb.cells.literals import Imported

_MISSING = object()


def match_import(definition: Definition, value: Any, *, is_last: bool) -> Imported | None:
    """Return the import of a statement, if it gave the value."""
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
    # After a module was edited and reloaded, it has another object under that name.
    came_from = str(getattr(value, "__module__", "")).split(".")[0]
    return needed if is_last and came_from == node.module.split(".")[0] else None


def matches_definition(definition: Definition, value: Any, *, is_last: bool, is_only: bool) -> bool:
    """Return whether a function or class comes from a ``def``, a ``class``, or an assigned lambda.

    Parameters
    ----------
    definition
        The statement.
    value
        The function or class.
    is_last
        Whether no later statement binds the name. The result of a decorator can be recognized only by this.
    is_only
        Whether no other statement binds the name.
    """
    node = definition.binding.node
    if isinstance(node, ast.ClassDef):
        return bool(is_last and node.decorator_list) or _is_class_of(definition, value)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        if is_last and node.decorator_list:
            return True
        return _is_function_of(value, node, node.name, definition.first, is_only)
    expression = getattr(node, "value", None)
    if definition.binding.how == "assign" and isinstance(expression, ast.Lambda):
        return _is_function_of(value, expression, "<lambda>", expression.lineno, is_only)
    return False


def _is_class_of(definition: Definition, value: Any) -> bool:
    if not isinstance(value, type) or value.__module__ != "__main__":
        return False
    # Before Python 3.13, a class doesn't have its first line, so its name must be enough.
    line = getattr(value, "__firstlineno__", definition.first)
    return value.__qualname__ == definition.binding.name and line == definition.first


def _is_function_of(value: Any, node: ast.stmt | ast.expr, name: str, line: int, is_only: bool) -> bool:
    if not isinstance(value, types.FunctionType) or value.__module__ != "__main__":
        return False
    code = value.__code__
    if code.co_filename == "<string>" or code.co_name != name or code.co_firstlineno != line:
        return False
    statement = node if isinstance(node, ast.stmt) else ast.copy_location(ast.Expr(node), node)
    compiled = compile(ast.Module([statement], []), "<cell>", "exec", dont_inherit=True)
    return any(
        # A transformation of the syntax tree may have changed the code. If there is no other definition, the arguments
        # are enough.
        _are_same(code, other) or (is_only and _arguments(code) == _arguments(other))
        for other in _functions(compiled)
        if other.co_name == name
    )


def _functions(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the functions of a block. A function with type parameters is inside a generated one."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            if constant.co_name.startswith("<generic parameters"):
                yield from _functions(constant)


def _arguments(code: types.CodeType) -> tuple[str, ...]:
    return code.co_varnames[: code.co_argcount]


def _are_same(code: types.CodeType, other: types.CodeType) -> bool:
    if (code.co_code, code.co_names, code.co_varnames) != (other.co_code, other.co_names, other.co_varnames):
        return False
    if len(code.co_consts) != len(other.co_consts):
        return False
    return all(
        _are_same(one, two)
        if isinstance(one, types.CodeType) and isinstance(two, types.CodeType)
        # NaN is the only constant that differs from itself.
        else type(one) is type(two) and (one == two or one != one)
        for one, two in zip(code.co_consts, other.co_consts, strict=True)
    )
