"""Find DAG functions that are never called, and slow calls outside of tasks."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from temporal_airflow_nb.checks.finding import Finding
from temporal_airflow_nb.checks.syntax import dotted, executed_at_once, imported_as, is_dag

_SLOW_MODULES = {
    "requests": ("get", "post", "put", "patch", "delete", "head", "request"),
    "httpx": ("get", "post", "put", "patch", "delete", "head", "request", "stream"),
    "subprocess": ("run", "call", "check_call", "check_output"),
    "time": ("sleep",),
    "urllib.request": ("urlopen", "urlretrieve"),
    "sqlite3": ("connect",),
    "psycopg2": ("connect",),
    "psycopg": ("connect",),
    "pymysql": ("connect",),
    "os": ("system",),
}
_READERS = ("pandas", "polars")
_TEMPLATE_HINTS = {
    "Variable.get": "`{{ var.value.NAME }}` in a template is read when the task runs",
    "Connection.get": "`{{ conn.ID.host }}` in a template is read when the task runs",
    "BaseHook.get_connection": "`{{ conn.ID.host }}` in a template is read when the task runs",
}


def uncalled_dags(tree: ast.Module) -> Iterator[Finding]:
    """Find functions with ``@dag`` that are never called."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    others = any(isinstance(node, ast.Call) and dotted(node.func)[-1:] == ["DAG"] for node in ast.walk(tree))
    found = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    dags = [node for node in found if any(is_dag(decorator, tree) for decorator in node.decorator_list)]
    for node in dags:
        if node.name in used:
            continue
        others_are_called = others or any(dag.name in used for dag in dags)
        yield Finding(
            "warning" if others_are_called else "error",
            "uncalled-dag",
            f"`{node.name}` is decorated with `@dag` but never called, so it defines no DAG.",
            node.lineno,
            f"Call it at the end: `{node.name}()`.",
            dag_id=node.name,
        )


def slow_calls(tree: ast.Module) -> Iterator[Finding]:
    """Find calls outside of tasks that may take long each time the file is parsed."""
    modules = _modules(tree)
    for node in _nodes_executed_while_parsing(tree):
        if not isinstance(node, ast.Call):
            continue
        names = dotted(node.func)
        name = ".".join(names)
        if not names:
            continue
        hint = "Move it into a task."
        if (instead := _TEMPLATE_HINTS.get(".".join(names[-2:]))) and names[-2] in modules:
            hint = f"Move it into a task; {instead}."
        elif not _is_slow(names, modules, tree):
            continue
        yield Finding(
            "warning",
            "slow-top-level-call",
            f"`{name}(…)` is called outside of any task, so it slows down each parsing of the file.",
            node.lineno,
            hint,
        )


def _nodes_executed_while_parsing(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes at the top level and in the bodies of DAG functions."""
    yield from executed_at_once(tree.body)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(is_dag(d, tree) for d in node.decorator_list):
            yield from executed_at_once(node.body)


def _modules(tree: ast.Module) -> dict[str, str]:
    """Return the full names of imported names."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _is_slow(names: list[str], modules: dict[str, str], tree: ast.Module) -> bool:
    if names == ["open"]:
        return not imported_as(tree, "", "open") and "open" not in modules
    owner, function = ".".join(names[:-1]), names[-1]
    if not owner:
        module, _, function = modules.get(function, "").rpartition(".")
    else:
        module = modules.get(owner, "")
    if module in _READERS and function.startswith(("read_", "scan_")):
        return True
    return function in _SLOW_MODULES.get(module, ())
