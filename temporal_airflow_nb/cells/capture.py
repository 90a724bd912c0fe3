"""Find the code and the values of other cells that a cell uses.

:func:`capture` starts with the names that the cell uses but doesn't define, and continues with those that their
definitions use. It includes the source of functions, classes, imports and reproducible assignments, and writes other
simple values as literals. A name that can't be included becomes a ``Problem``.

Runs in the kernel, in the thread that executes cells, because it reads the values of the notebook's namespace. It never
changes a value, but evaluates pure expressions again to compare their results (``replay``).
"""

from __future__ import annotations

import ast
import builtins
import difflib
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from temporal_airflow_nb.cells import replay
from temporal_airflow_nb.cells.bound_names import Binding, find_bindings, has_star_import
from temporal_airflow_nb.cells.captured_code import CapturedCode, Chunk, Problem
from temporal_airflow_nb.cells.cell_history import Definition, History
from temporal_airflow_nb.cells.literals import (
    Imported,
    NotSimpleError,
    Rendering,
    describe,
    explain_refusal,
    is_importable,
)
from temporal_airflow_nb.cells.provenance import match_import, matches_definition
from temporal_airflow_nb.cells.replay import Namespace
from temporal_airflow_nb.cells.used_names import Use, find_uses

# Names that IPython adds to the builtins, with the advice what to do instead. Tasks don't have them.
_IPYTHON_NAMES = {
    "display": "print it, or return it from the task",
    "get_ipython": "a task runs outside of the notebook",
    "In": "give what you need a name of its own, in a cell",
    "Out": "give what you need a name of its own, in a cell",
}
_LAST_OUTPUT = re.compile(r"_{1,3}|_i{1,3}|_i?\d+|_[ido]h")
_BUILTINS = frozenset(dir(builtins)) - {*_IPYTHON_NAMES, "_"} | {
    "__file__",
    "__annotations__",
    "__builtins__",
}
_KNOWN_IMPORTS = {
    "dag": "from airflow.sdk import dag",
    "task": "from airflow.sdk import task",
    "task_group": "from airflow.sdk import task_group",
    "DAG": "from airflow.sdk import DAG",
    "pd": "import pandas as pd",
    "np": "import numpy as np",
    "plt": "import matplotlib.pyplot as plt",
    "pendulum": "import pendulum",
    "datetime": "from datetime import datetime",
    "timedelta": "from datetime import timedelta",
    "Path": "from pathlib import Path",
}
_SECRET = re.compile(
    r"password|passwd|passphrase|secret|token|api_?key|private_?key|credential", re.IGNORECASE
)


def capture(tree: ast.Module, namespace: Namespace, history: History) -> CapturedCode:
    """Find the names that a cell uses but doesn't define, and include their definitions.

    Parameters
    ----------
    tree
        The syntax tree of the cell.
    namespace
        The namespace of the notebook. The present value of a name decides which of its definitions is included.
    history
        The executed cells.
    """
    search = _Search(tree, namespace, history)
    # Any unknown name may come from a star import, so only warnings about secrets are certain.
    has_unknown_names = has_star_import(tree)
    for use in find_uses(tree):
        if not (use.annotation and _defers_annotations(tree) and use.name not in namespace):
            search.find(use.name, use, ())
    found = search.captured
    if has_unknown_names:
        found.problems = [problem for problem in found.problems if problem.code == "secret-value"]
    named = {(c.execution_count, c.line) for key, c in search.chunks.items() if key in found.names}
    found.chunks = _ordered(
        {
            key: chunk
            for key, chunk in search.chunks.items()
            if key in found.names or (chunk.execution_count, chunk.line) not in named
        }
    )
    found.imports = sorted(search.imports, key=lambda one: (one.module, one.attribute or "", one.name))
    if found.chunks:
        found.future = history.future_features()
    return found


class _Search:
    """The search of one :func:`capture`."""

    def __init__(self, tree: ast.Module, namespace: Namespace, history: History) -> None:
        self.namespace = namespace
        self.history = history
        self.own = {binding.name for binding in find_bindings(tree.body)}
        self.captured = CapturedCode()
        self.chunks: dict[str, Chunk] = {}
        self.imports: set[Imported] = set()
        self.done: set[str] = set()
        self.assigned: set[str] = set()

    def find(self, name: str, use: Use, through: tuple[str, ...]) -> None:
        """Include a name.

        ``use`` is the place in the cell that needs it, and ``through`` holds the names between that place and ``name``.
        """
        if name in self.done:
            return
        # Before the search: definitions may use each other.
        self.done.add(name)
        if name in _BUILTINS and not self._is_redefined(name):
            return
        advice = self._advice_for_ipython_name(name)
        if use.guarded and (advice or name not in self.namespace):
            return
        if advice:
            self._problem(name, "captured-name", use, through, "exists only in the notebook", advice)
            return
        if name not in self.namespace:
            self._report_missing(name, use, through)
            return
        value = self.namespace[name]
        if not self._include_definition(name, value, use, through) and not self._include_import(name, value):
            self._include_value(name, value, use, through)

    def _is_redefined(self, name: str) -> bool:
        known = getattr(builtins, name, None)
        return self.namespace.get(name, known) is not known and bool(self.history.definitions(name))

    def _advice_for_ipython_name(self, name: str) -> str | None:
        if self.history.definitions(name):
            return None
        if _LAST_OUTPUT.fullmatch(name):
            return _IPYTHON_NAMES["Out"]
        return _IPYTHON_NAMES.get(name)

    def _include_definition(self, name: str, value: Any, use: Use, through: tuple[str, ...]) -> bool:
        """Include the latest definition that gave the name its present value."""
        definitions = self.history.definitions(name)
        for definition in definitions:
            is_last = definition is definitions[0]
            match definition.binding:
                case Binding(how="import"):
                    if (needed := match_import(definition, value, is_last=is_last)) is not None:
                        self._add_import(name, needed)
                        return True
                case Binding(how="assign", node=ast.Assign() | ast.AnnAssign() as node) if not _is_lambda(
                    node.value
                ):
                    if self._is_reproducible(name, node.value, value):
                        self.assigned.add(name)
                        self._add_source(name, definition, use, through)
                        self.assigned.discard(name)
                        self._warn_of_secret(name, value, use, through)
                        return True
                case _ if matches_definition(
                    definition, value, is_last=is_last, is_only=len(definitions) == 1
                ):
                    self._add_source(name, definition, use, through)
                    return True
        return False

    def _is_reproducible(self, name: str, expression: ast.expr | None, value: Any) -> bool:
        names = {n.id for n in ast.walk(expression or ast.Constant(0)) if isinstance(n, ast.Name)}
        # If two assignments use each other's name, one of the names had another value when it was used.
        if expression is None or names & {name, *self.assigned}:
            return False
        return replay.reproduces(expression, value, self.namespace)

    def _add_source(self, name: str, definition: Definition, use: Use, through: tuple[str, ...]) -> None:
        needed = self._add_chunk(name, definition)
        self.captured.names[name] = definition.place
        if definition.binding.how in ("def", "class"):
            for change in self.history.changes(definition):
                needed |= self._add_chunk(change.place, change)
        for found in sorted(needed):
            self.find(found, use, (*through, f"{name} ({definition.place})"))

    def _add_chunk(self, key: str, definition: Definition) -> set[str]:
        text, line = definition.text()
        tree = ast.Module([definition.binding.node], [])
        deferred = "annotations" in self.history.future_features()
        needed = [
            found
            for found in find_uses(tree)
            if not (found.deferred and found.name in self.own)
            and not (found.annotation and deferred and found.name not in self.namespace)
        ]
        names = {found.name for found in needed}
        at_once = {found.name for found in needed if not found.deferred}
        self.chunks[key] = Chunk(text, definition.execution_count, line, names, at_once)
        return names

    def _add_import(self, name: str, needed: Imported) -> None:
        self.imports.add(needed)
        self.captured.names[name] = "import"
        # `import a.b` and `import a.c` both bind `a`, and each loads another submodule.
        for other in self.history.definitions(name):
            alias = other.binding.alias
            is_plain = isinstance(other.binding.node, ast.Import) and alias and alias.asname is None
            if is_plain and needed.attribute is None and needed.name == needed.module.split(".")[0]:
                self.imports.add(Imported(alias.name, None, name))  # type: ignore[union-attr]
        if any(n.module.startswith(f"{name}.") and n.name == name for n in self.imports):
            self.imports.discard(Imported(name, None, name))

    def _include_import(self, name: str, value: Any) -> bool:
        """Include an import for a module, function or class that no import statement of a cell names."""
        needed = None
        if isinstance(value, types.ModuleType):
            if sys.modules.get(value.__name__) is value and value.__spec__ is not None:
                needed = Imported(value.__name__, None, name)
        elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)) and is_importable(
            value
        ):
            needed = Imported(value.__module__, value.__name__, name)
        for module in self.history.star_imports():
            if needed is None and getattr(sys.modules.get(module), name, _MISSING) is value:
                needed = Imported(module, name, name)
        if needed is None:
            return False
        self.imports.add(needed)
        self.captured.names[name] = "import"
        return True

    def _include_value(self, name: str, value: Any, use: Use, through: tuple[str, ...]) -> None:
        self.assigned.add(name)
        rendering = Rendering(self._name_of, self._is_free)
        definitions = self.history.definitions(name)
        place = definitions[0] if definitions else None
        try:
            text = rendering.source(value)
        except NotSimpleError as error:
            self._refuse(name, value, str(error), use, through)
            self.assigned.discard(name)
            return
        self.imports |= rendering.imports
        self.chunks[name] = Chunk(
            f"{name} = {text}",
            place.execution_count if place else None,
            place.line if place else None,
            set(rendering.names),
            set(rendering.names),
        )
        self.captured.names[name] = f"value of {place.place}" if place else "value"
        self._warn_of_secret(name, value, use, through)
        for needed in sorted(rendering.names):
            self.find(needed, use, (*through, name))
        self.assigned.discard(name)
        # The value contains functions or classes. If their definitions use the value while they are executed, as a
        # decorator that registers them does, neither can come first in the file.
        for needed in sorted(rendering.names):
            if name in self._executed_with(needed):
                self._include_initial_value(name, needed, use, through)
                return

    def _executed_with(self, name: str) -> set[str]:
        """Return the names that may be used while the definition of a name is executed."""
        found: set[str] = set()
        waiting = list(self.chunks[name].used_at_once) if name in self.chunks else []
        while waiting:
            if (one := waiting.pop()) not in found:
                found.add(one)
                waiting += self.chunks[one].needs if one in self.chunks else ()
        return found

    def _include_initial_value(self, name: str, member: str, use: Use, through: tuple[str, ...]) -> None:
        """Include the initial value of a registry. The decorated definitions of its members fill it again."""
        match self.history.definitions(name)[:1]:
            case [
                Definition(
                    binding=Binding(
                        how="assign", node=ast.Assign(value=made) | ast.AnnAssign(value=ast.expr() as made)
                    )
                ) as definition
            ] if replay.is_pure(made, self.namespace):
                self._add_chunk(name, definition)
                self.captured.names[name] = definition.place
                return
        what = f"holds {member}, whose definition needs {name}"
        hint = "write both into this cell, or into a module beside the notebook"
        self._problem(name, "captured-name", use, through, what, hint)

    def _name_of(self, thing: Any) -> str | None:
        """Return the name by which a function, class or module can be included."""
        names = [getattr(thing, "__name__", ""), *self.namespace]
        return next((n for n in names if self.namespace.get(n) is thing and self._is_code(n, thing)), None)

    def _is_code(self, name: str, thing: Any) -> bool:
        definitions = self.history.definitions(name)
        for definition in definitions:
            is_last = definition is definitions[0]
            match definition.binding:
                case Binding(how="import"):
                    found = match_import(definition, thing, is_last=is_last) is not None
                case Binding(how="assign", node=ast.Assign(value=expression)) if not _is_lambda(expression):
                    found = name not in self.assigned and self._is_reproducible(name, expression, thing)
                case _:
                    found = matches_definition(
                        definition, thing, is_last=is_last, is_only=len(definitions) == 1
                    )
            if found:
                return True
        return False

    def _is_free(self, name: str) -> bool:
        return name not in self.namespace and name not in self.own

    def _refuse(self, name: str, value: Any, reason: str, use: Use, through: tuple[str, ...]) -> None:
        what, _, hint = reason.partition(": ")
        definitions = self.history.definitions(name)
        if isinstance(value, types.FunctionType) and definitions and definitions[0].binding.how != "assign":
            what, hint = (
                f"is {describe(value)}, which isn't what {definitions[0].place} defined",
                "execute the cell that defines it again",
            )
        elif definitions and definitions[0].binding.how == "assign" and hint == _DEFAULT_ADVICE:
            assignment = ast.unparse(definitions[0].binding.node)
            if len(assignment) <= 80:
                hint = f"create it inside the task, or copy `{assignment}` into this cell"
        self._problem(name, "captured-name", use, through, what, hint)

    def _report_missing(self, name: str, use: Use, through: tuple[str, ...]) -> None:
        definitions = self.history.definitions(name)
        if definitions:
            what = f"isn't defined any more; {definitions[0].place} defined it"
            hint = "execute that cell again"
        elif (place := self.history.place_in_dag_cell(name)) is not None:
            what = (
                f"is only defined by {place}, but a cell with %%temporal_dag isn't executed in the notebook"
            )
            hint = "move its definition to a cell without the magic, so that both cells can use it"
        else:
            what = "is defined neither in this cell nor in an executed one"
            known = [n for n in self.namespace if not n.startswith("_")]
            close = difflib.get_close_matches(name, [*known, *self.own, *_BUILTINS], n=1, cutoff=0.75)
            hint = f"import it: `{_KNOWN_IMPORTS[name]}`" if name in _KNOWN_IMPORTS else "define it in a cell"
            if close and name not in _KNOWN_IMPORTS:
                hint = f"did you mean {close[0]}?"
        self._problem(name, "unknown-name", use, through, what, hint)

    def _warn_of_secret(self, name: str, value: Any, use: Use, through: tuple[str, ...]) -> None:
        if isinstance(value, str) and value and _SECRET.search(name):
            self._problem(
                name,
                "secret-value",
                use,
                through,
                "would be written into the DAG file, which Airflow's UI shows",
                "let the task read it from a connection or a variable",
            )

    def _problem(
        self, name: str, code: str, use: Use, through: tuple[str, ...], what: str, hint: str
    ) -> None:
        where = (
            f"In task {use.task}, " if use.task else f"In {use.functions[-1]}(), " if use.functions else ""
        )
        by = f"{through[-1]} uses {name}, which {what}" if through else f"{name} {what}"
        message = f"{where}{by}."
        self.captured.problems.append(
            Problem(name, code, use, message[0].upper() + message[1:] if where else message, _sentence(hint))
        )


_MISSING = object()
_DEFAULT_ADVICE = explain_refusal(object()).partition(": ")[2]


def _is_lambda(expression: ast.expr | None) -> bool:
    return isinstance(expression, ast.Lambda)


def _defers_annotations(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and any(alias.name == "annotations" for alias in node.names)
        for node in tree.body
    )


def _sentence(text: str) -> str:
    end = "" if text.endswith(("?", ".")) else "."
    return text[:1].upper() + text[1:] + end


def _ordered(chunks: Mapping[str, Chunk]) -> list[Chunk]:
    """Order chunks as their cells were executed, but each after the chunks that it needs."""
    ordered: list[Chunk] = []
    visited: set[str] = set()

    def place(key: Callable[[str], tuple[int, int]], name: str) -> None:
        if name in visited or name not in chunks:
            return
        visited.add(name)
        for needed in sorted(chunks[name].needs & chunks.keys(), key=key):
            place(key, needed)
        ordered.append(chunks[name])

    def position(name: str) -> tuple[int, int]:
        return chunks[name].execution_count or 0, chunks[name].line or 0

    for name in sorted(chunks, key=position):
        place(position, name)
    return ordered
