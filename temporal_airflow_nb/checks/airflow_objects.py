"""Names of what Airflow stores: connections, variables, pools."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from temporal_airflow_nb.checks.syntax import dotted, literal, text_of

_TEMPLATE = re.compile(r"{{.*?}}|{%.*?%}", re.DOTALL)
_VARIABLE = re.compile(r"\bvar\.(?:value|json)\.(?!get\b)(\w+)")
_VARIABLE_GET = re.compile(r"""\bvar\.(?:value|json)\.get\(\s*(['"])([^'"]+)\1\s*\)""")
_CONNECTION = re.compile(r"\bconn\.(?!get\b)(\w+)")
_CONNECTION_GET = re.compile(r"""\bconn\.get\(\s*(['"])([^'"]+)\1\s*\)""")
_READERS = {
    "Variable.get": "variables",
    "Connection.get": "connections",
    "Connection.get_connection_from_secrets": "connections",
    "BaseHook.get_connection": "connections",
    "BaseHook.get_hook": "connections",
}


@dataclass
class Uses:
    """What source names, each with the line of the first use."""

    connections: dict[str, int] = field(default_factory=dict)
    variables: dict[str, int] = field(default_factory=dict)
    pools: dict[str, int] = field(default_factory=dict)


class _Named(NamedTuple):
    kind: str
    name: str
    line: int


def uses(tree: ast.AST) -> Uses:
    """Return what a syntax tree names."""
    found = Uses()
    for kind, name, line in sorted(_named(tree), key=lambda named: named.line):
        getattr(found, kind).setdefault(name, line)
    return found


def _named(tree: ast.AST) -> Iterator[_Named]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _in_templates(node.value, node.lineno)
        elif isinstance(node, ast.Call):
            yield from _in_call(node)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if key is not None:
                    yield from _argument(text_of(key), value)


def _in_call(call: ast.Call) -> Iterator[_Named]:
    for keyword in call.keywords:
        yield from _argument(keyword.arg, keyword.value)
    reader = ".".join(dotted(call.func)[-2:])
    if (kind := _READERS.get(reader)) is None:
        return
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    if kind == "variables" and (len(call.args) > 1 or {"default", "default_var", None} & set(arguments)):
        return
    chosen = call.args[0] if call.args else arguments.get("key") or arguments.get("conn_id")
    if chosen is not None and (name := text_of(chosen)):
        yield _Named(kind, name, call.lineno)


def _argument(name: str | None, value: ast.expr) -> Iterator[_Named]:
    text = literal(value)
    if name is None or not isinstance(text, str) or not text or "{{" in text:
        return
    if name.endswith("conn_id"):
        yield _Named("connections", text, value.lineno)
    elif name == "pool":
        yield _Named("pools", text, value.lineno)


def _in_templates(text: str, line: int) -> Iterator[_Named]:
    for template in _TEMPLATE.finditer(text):
        at = line + text[: template.start()].count("\n")
        # Filters such as default() make do without the value.
        if "default" in template[0]:
            continue
        for kind, plain, getter in (
            ("variables", _VARIABLE, _VARIABLE_GET),
            ("connections", _CONNECTION, _CONNECTION_GET),
        ):
            yield from (_Named(kind, found[1], at) for found in plain.finditer(template[0]))
            yield from (_Named(kind, found[2], at) for found in getter.finditer(template[0]))
