"""Doors open one way: which room of ARCHITECTURE.md imports which, and which never meets Temporal or Airflow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "temporal_airflow_nb"
ROOT = Path(__file__).parent.parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / PACKAGE).rglob("*.py")
    if "node_modules" not in path.parts
}

OF_PROCESSES = ("airflow", "temporalio", "tasks", "orchestration", "airflow_hooks")
FORBIDDEN = {
    "tasks": ("temporalio", "orchestration", "airflow_hooks", "stack", "notebook", "display", "frames"),
    "orchestration": ("airflow_hooks", "stack", "notebook", "display", "frames"),
    "airflow_hooks": ("stack", "notebook", "display", "frames"),
    "display": (*OF_PROCESSES, "stack", "notebook", "frames"),
    "frames": (*OF_PROCESSES, "stack", "notebook"),
    "notebook": OF_PROCESSES,
}
# What reads a source's text alone serves both sides of the gateway.
OPEN_TO_STACK = {"line_map", "preflight", "settings"}
# `airflow temporal doctor` is the one command that asks Temporal.
ASKS_TEMPORAL = f"{PACKAGE}.airflow_hooks.diagnosis"


@cache
def imports(module: str, *, in_functions: bool = True) -> frozenset[str]:
    """Return what a module imports, but for what it imports for type checkers alone."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    return frozenset(name for node in executed(tree, in_functions) for name in named(node))


def executed(node: ast.AST, in_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and not in_functions:
            continue
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from executed(child, in_functions)


def named(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    else:
        assert not node.level, "imports of this package are absolute"
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            yield submodule if submodule in FILES else str(node.module)


def room(module: str) -> str:
    """Return the room of one of our modules; of another's, its package.

    >>> room("temporal_airflow_nb.stack.local"), room("temporalio.client")
    ('stack', 'temporalio')
    """
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == PACKAGE else first


def loaded_by(module: str) -> dict[str, str]:
    """Return what is imported when a module is, and when its functions are called, each with who imports it."""
    found = dict.fromkeys(imports(module), module)
    left = [name for name in found if name in FILES]
    while left:
        importer = left.pop()
        new = imports(importer, in_functions=False) - found.keys()
        found |= dict.fromkeys(new, importer)
        left += new & FILES.keys()
    return found


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_room_imports_no_room_above_it(name):
    modules = [module for module in FILES if room(module) == name]
    assert modules
    wrong = {m: sorted(i for i in imports(m) if room(i) in FORBIDDEN[name]) for m in modules}
    assert not {module: names for module, names in wrong.items() if names}


def test_the_stack_takes_from_the_notebook_what_reads_text_alone():
    taken = {i for m in FILES if room(m) == "stack" for i in imports(m) if room(i) == "notebook"}
    assert {name.rpartition(".")[2] for name in taken} <= OPEN_TO_STACK


def test_what_airflows_processes_load_meets_no_temporal_client():
    hooks = [m for m in FILES if room(m) in ("airflow_hooks", "orchestrator") and m != ASKS_TEMPORAL]
    assert hooks
    for module in hooks:
        found = loaded_by(module).items()
        assert not [f"{by} imports {name}" for name, by in found if room(name) == "temporalio"], module
