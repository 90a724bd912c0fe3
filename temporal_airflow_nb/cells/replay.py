"""Find assignments that give the same value when they are executed again in another process."""

from __future__ import annotations

import ast
import builtins
import datetime
import enum
import functools
import types
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from temporal_airflow_nb.cells.literals import are_equal

Namespace = Mapping[str, Any]
"""The names that cells have bound, with their values: IPython's ``user_ns``."""

_NODES = (
    ast.Constant,
    ast.Tuple,
    ast.List,
    ast.Set,
    ast.Dict,
    ast.UnaryOp,
    ast.BinOp,
    ast.JoinedStr,
    ast.FormattedValue,
    ast.Starred,
    ast.keyword,
    ast.operator,
    ast.unaryop,
    ast.expr_context,
)
_SIMPLE = (
    *(bool, int, float, complex, str, bytes, type(None), tuple, list, dict, set, frozenset),
    *(datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, PurePath, enum.Enum),
)
_CODE = (types.FunctionType, types.BuiltinFunctionType, type, types.ModuleType)
# The results of their functions and classes depend on the arguments only.
_PURE_MODULES = frozenset(
    {
        *("airflow", "collections", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools"),
        *("operator", "pathlib", "pendulum", "re", "string", "typing", "typing_extensions", "uuid"),
        "zoneinfo",
    }
)
_PURE_BUILTINS = frozenset(
    {
        *("abs", "bool", "bytes", "complex", "dict", "divmod", "float", "frozenset", "int", "len", "list"),
        *("max", "min", "range", "round", "set", "sorted", "str", "sum", "tuple"),
    }
)
_TIME_DEPENDENT = frozenset(
    {
        *("cwd", "fromtimestamp", "home", "now", "today", "tomorrow", "utcnow", "uuid1", "uuid4"),
        "yesterday",
    }
)


def reproduces(expression: ast.expr, value: Any, namespace: Namespace) -> bool:
    """Return whether an expression is pure and gives an equal value when it is evaluated again.

    Parameters
    ----------
    expression
        The right side of an assignment.
    value
        The present value of the name.
    namespace
        The namespace of the notebook.
    """
    if not is_pure(expression, namespace):
        return False
    code = compile(ast.Expression(expression), "<assignment>", "eval", dont_inherit=True)
    # Safe, because the expression is pure. In a copy of the namespace, to which `eval` adds `__builtins__`.
    try:
        again = eval(code, dict(namespace))
    except Exception:
        # The names that it uses may have other values by now, so that it can raise any error.
        return False
    return are_equal(value, again) or _are_equivalent(value, again)


def _are_equivalent(value: Any, again: Any) -> bool:
    """Return whether two objects without their own equality were created in the same way."""
    if isinstance(value, functools.partial) and isinstance(again, functools.partial):
        made = (value.func, value.args, value.keywords)
        return are_equal(made, (again.func, again.args, again.keywords))
    if isinstance(value, type) and isinstance(again, type):
        return value.__qualname__ == again.__qualname__ and value.__bases__ == again.__bases__
    return type(value) is type(again) and getattr(type(value), "__eq__", None) is object.__eq__


def is_pure(node: ast.AST, namespace: Namespace) -> bool:
    """Return whether an expression depends on simple values only and has no side effects."""
    if isinstance(node, ast.Name):
        value = namespace.get(node.id, getattr(builtins, node.id, _MISSING))
        return isinstance(value, (*_SIMPLE, *_CODE)) or _is_typing(value)
    if isinstance(node, ast.Attribute):
        return _is_pure_attribute(node, namespace)
    if isinstance(node, ast.Subscript):
        return _is_typing(_resolve(node.value, namespace)) and is_pure(node.slice, namespace)
    if isinstance(node, ast.Call):
        if not _is_pure_function(node.func, namespace):
            return False
        return all(is_pure(part, namespace) for part in [*node.args, *node.keywords])
    if not isinstance(node, _NODES):
        return False
    return all(is_pure(child, namespace) for child in ast.iter_child_nodes(node))


_MISSING = object()


def _resolve(node: ast.expr, namespace: Namespace) -> Any:
    """Return the object of a dotted name that consists of modules and classes."""
    if isinstance(node, ast.Name):
        return namespace.get(node.id, getattr(builtins, node.id, _MISSING))
    if isinstance(node, ast.Attribute):
        owner = _resolve(node.value, namespace)
        if isinstance(owner, (types.ModuleType, type)):
            return getattr(owner, node.attr, _MISSING)
    return _MISSING


def _is_pure_attribute(node: ast.Attribute, namespace: Namespace) -> bool:
    value = _resolve(node, namespace)
    simple = isinstance(value, _SIMPLE) and not isinstance(value, (list, dict, set))
    return simple or isinstance(value, _CODE) or _is_typing(value)


def _is_pure_function(node: ast.expr, namespace: Namespace) -> bool:
    if isinstance(node, ast.Attribute) and node.attr in _TIME_DEPENDENT:
        return False
    function = _resolve(node, namespace)
    if function is _MISSING:
        return False
    if (name := getattr(function, "__name__", "")) and getattr(builtins, name, None) is function:
        return name in _PURE_BUILTINS
    owner = getattr(function, "__self__", None)
    module = getattr(function, "__module__", None) or getattr(owner, "__module__", None) or ""
    if module == "logging":
        return name == "getLogger"
    return module.split(".")[0].lstrip("_") in _PURE_MODULES and name not in _TIME_DEPENDENT


def _is_typing(value: Any) -> bool:
    return isinstance(value, type) or getattr(type(value), "__module__", "") in ("typing", "types")
