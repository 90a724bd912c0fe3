"""Find the connections, variables and pools that source uses by name."""

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
    """The names that source uses, each with the line of its first use."""

    connections: dict[str, int] = field(default_factory=dict)
    variables: dict[str, int] = field(default_factory=dict)
    pools: dict[str, int] = field(default_factory=dict)


class _Use(NamedTuple):
    kind: str
    name: str
    line: int


def find_uses(tree: ast.AST) -> Uses:
    """Return the connections, variables and pools that a syntax tree uses."""
    found = Uses()
    for kind, name, line in sorted(_find_uses(tree), key=lambda use: use.line):
        getattr(found, kind).setdefault(name, line)
    return found


def _find_uses(tree: ast.AST) -> Iterator[_Use]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _find_in_templates(node.value, node.lineno)
        elif isinstance(node, ast.Call):
            yield from _find_in_call(node)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if key is not None:
                    yield from _find_in_argument(text_of(key), value)


def _find_in_call(call: ast.Call) -> Iterator[_Use]:
    for keyword in call.keywords:
        yield from _find_in_argument(keyword.arg, keyword.value)
    reader = ".".join(dotted(call.func)[-2:])
    if (kind := _READERS.get(reader)) is None:
        return
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    if kind == "variables" and (len(call.args) > 1 or {"default", "default_var", None} & set(arguments)):
        return
    key = call.args[0] if call.args else arguments.get("key") or arguments.get("conn_id")
    if key is not None and (name := text_of(key)):
        yield _Use(kind, name, call.lineno)


def _find_in_argument(name: str | None, value: ast.expr) -> Iterator[_Use]:
    text = literal(value)
    if name is None or not isinstance(text, str) or not text or "{{" in text:
        return
    if name.endswith("conn_id"):
        yield _Use("connections", text, value.lineno)
    elif name == "pool":
        yield _Use("pools", text, value.lineno)


def _find_in_templates(text: str, line: int) -> Iterator[_Use]:
    for template in _TEMPLATE.finditer(text):
        at = line + text[: template.start()].count("\n")
        # With a filter such as `default()`, the value needn't exist.
        if "default" in template[0]:
            continue
        for kind, plain, getter in (
            ("variables", _VARIABLE, _VARIABLE_GET),
            ("connections", _CONNECTION, _CONNECTION_GET),
        ):
            yield from (_Use(kind, found[1], at) for found in plain.finditer(template[0]))
            yield from (_Use(kind, found[2], at) for found in getter.finditer(template[0]))
