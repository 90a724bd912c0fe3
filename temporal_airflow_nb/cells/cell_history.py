"""The cells that a notebook has executed, as Python source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from temporal_airflow_nb.cells.bound_names import Binding, bindings
from temporal_airflow_nb.cells.line_map import lines_of

# Their bodies are executed in the notebook's namespace.
_TRANSPARENT_MAGICS = frozenset({"time", "capture", "prun"})
_DAG_MAGIC = frozenset({"temporal_dag"})


@dataclass(frozen=True, eq=False)
class Part:
    """Python source out of a cell.

    Attributes
    ----------
    source : str
        The source, without the syntax that only IPython knows.
    tree : ast.Module
        Its syntax tree.
    first_line : int
        Which line of the cell the source begins on.
    """

    source: str
    tree: ast.Module
    first_line: int

    @property
    def lines(self) -> list[str]:
        """The source line by line."""
        return lines_of(self.source)


@dataclass(frozen=True, eq=False)
class Definition:
    """A statement of an executed cell that binds a name.

    Attributes
    ----------
    execution_count : int
        Of the cell.
    part : Part
        The source that the statement is in.
    binding : Binding
        The statement.
    """

    execution_count: int
    part: Part
    binding: Binding

    @property
    def first(self) -> int:
        """First line of the statement in its part, decorators included."""
        node = self.binding.node
        decorators = getattr(node, "decorator_list", [])
        return min([node.lineno, *(decorator.lineno for decorator in decorators)])

    @property
    def line(self) -> int:
        """First line of the statement in its cell."""
        return self.part.first_line + self.first - 1

    @property
    def place(self) -> str:
        """As ``"In [3], line 2"``."""
        return f"In [{self.execution_count}], line {self.line}"

    def text(self) -> tuple[str, int]:
        """Return the statement's source with the comments right above it, and its first line in the cell."""
        node = self.binding.node
        lines = self.part.lines
        shares_line = any(
            other is not node
            and other.lineno <= (node.end_lineno or 0)
            and (other.end_lineno or 0) >= self.first
            for other in _siblings(self.part.tree, node)
        )
        if shares_line:
            return ast.unparse(node), self.line
        first = self.first
        indent = " " * node.col_offset
        while first > 1 and re.match(rf"{indent}#(?! %%)", lines[first - 2]):
            first -= 1
        in_text = _lines_within_text(node)
        chosen = [
            line if number in in_text else line.removeprefix(indent)
            for number, line in enumerate(lines[first - 1 : node.end_lineno], first)
        ]
        return "\n".join(chosen), self.part.first_line + first - 1


class History:
    """What executed cells have bound.

    Parameters
    ----------
    cells
        The cells as they were entered; a cell's index is its execution count, as in IPython's
        ``history_manager.input_hist_raw``.
    before
        Execution count of the cell that asks: neither it nor a later one counts.
    """

    def __init__(self, cells: Sequence[str], before: int) -> None:
        self._cells = [(count, cell) for count, cell in enumerate(cells) if 0 < count < before]
        self._by_name: dict[str, list[Definition]] | None = None

    def definitions(self, name: str) -> list[Definition]:
        """Return what has bound a name, the latest first."""
        if self._by_name is None:
            self._by_name = {}
            for count, cell in self._cells:
                for part in parts(cell):
                    for binding in bindings(part.tree.body):
                        self._by_name.setdefault(binding.name, []).append(Definition(count, part, binding))
        return self._by_name.get(name, [])[::-1]

    def changes(self, definition: Definition) -> list[Definition]:
        """Return what has been done to a function or class since: ``A.x = 1``, ``@kind.register``, in order."""
        name = definition.binding.name
        found: dict[str, Definition] = {}
        for count, cell in self._cells:
            for part in parts(cell):
                for node in part.tree.body:
                    if not _changes(node, name):
                        continue
                    change = Definition(count, part, Binding(name, "other", node))
                    if (count, change.line) > (definition.execution_count, definition.line):
                        text = ast.dump(node)
                        found.pop(text, None)
                        found[text] = change
        return list(found.values())

    def in_dag_cell(self, name: str) -> str | None:
        """Return where a cell under ``%%temporal_dag``, which isn't executed in the notebook, binds a name."""
        for count, cell in reversed(self._cells):
            for part in parts(cell, _DAG_MAGIC):
                for binding in bindings(part.tree.body):
                    if binding.name == name:
                        return Definition(count, part, binding).place
        return None

    def star_imports(self) -> list[str]:
        """Return the modules of which ``from … import *`` was executed, the latest first."""
        return [
            node.module
            for definition in self.definitions("*")
            if isinstance(node := definition.binding.node, ast.ImportFrom) and node.module
        ]

    def future_features(self) -> list[str]:
        """Return what was imported ``from __future__``: in IPython it holds for all later cells."""
        found = {
            alias.name
            for _, cell in self._cells
            for part in parts(cell)
            for node in part.tree.body
            if isinstance(node, ast.ImportFrom) and node.module == "__future__"
            for alias in node.names
        }
        return sorted(found)


@lru_cache(maxsize=1024)
def parts(cell: str, magics: frozenset[str] = _TRANSPARENT_MAGICS) -> tuple[Part, ...]:
    """Return the Python source of a cell: all of it, or the body of a magic that executes it in the namespace.

    A cell that isn't Python even then has no parts.

    Parameters
    ----------
    cell
        The cell as it was entered.
    magics
        The names of such magics; where others are named, cells without one of them have no parts.
    """
    return tuple(_parts(cell, 1, magics))


def _parts(cell: str, first_line: int, magics: frozenset[str]) -> Iterator[Part]:
    from IPython.core.inputtransformer2 import TransformerManager

    # IPython takes blank lines away.
    if blank := re.match(r"(?:[^\S\n]*\n)+", cell):
        first_line += blank[0].count("\n")
    try:
        source = TransformerManager().transform_cell(cell)
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    if (magic := _cell_magic(tree)) is None:
        if magics is _TRANSPARENT_MAGICS:
            yield Part(source, tree, first_line)
    elif magic[0] in magics:
        yield from _parts(magic[1], first_line + 1, _TRANSPARENT_MAGICS)


def _cell_magic(tree: ast.Module) -> tuple[str, str] | None:
    """Return name and body of the magic that a cell consists of."""
    match tree.body:
        case [
            ast.Expr(
                value=ast.Call(
                    func=ast.Attribute(attr="run_cell_magic"),
                    args=[ast.Constant(value=str(name)), _, ast.Constant(value=str(body))],
                )
            )
        ]:
            return name, body
    return None


def _changes(node: ast.stmt, name: str) -> bool:
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    decorators = getattr(node, "decorator_list", [])
    return any(_is_part_of(part, name) for part in [*targets, *decorators])


def _is_part_of(expression: ast.AST | None, name: str, depth: int = 0) -> bool:
    match expression:
        case ast.Attribute(value=value) | ast.Subscript(value=value):
            return _is_part_of(value, name, depth + 1)
        case ast.Call(func=function):
            return _is_part_of(function, name, depth)
        case ast.Name(id=found):
            return depth > 0 and found == name
    return False


def _lines_within_text(node: ast.AST) -> set[int]:
    """Return the lines that begin inside a string: their indentation is part of it."""
    return {
        line
        for part in ast.walk(node)
        if isinstance(part, ast.JoinedStr)
        or (isinstance(part, ast.Constant) and isinstance(part.value, (str, bytes)))
        for line in range(part.lineno + 1, (part.end_lineno or part.lineno) + 1)
    }


def _siblings(tree: ast.Module, node: ast.stmt) -> list[ast.stmt]:
    for parent in ast.walk(tree):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(parent, block, None)
            if isinstance(statements, list) and node in statements:
                return statements
    return []
