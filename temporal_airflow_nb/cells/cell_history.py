"""The executed cells of a notebook, parsed as Python source.

Runs in the kernel. IPython's own transformer translates the cells, so they are parsed as IPython executed them. Parsed
cells are cached by their text. A cell that isn't Python, such as one with ``%%bash``, defines nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from temporal_airflow_nb.cells.bound_names import Binding, find_bindings
from temporal_airflow_nb.cells.line_map import split_lines

# These cell magics execute their bodies in the namespace of the notebook.
_TRANSPARENT_MAGICS = frozenset({"time", "capture", "prun"})
_DAG_MAGIC = frozenset({"temporal_dag"})


@dataclass(frozen=True, eq=False)
class Part:
    """Python source from a cell.

    Attributes
    ----------
    source : str
        The source, with IPython's syntax translated to Python.
    tree : ast.Module
        The syntax tree of the source.
    first_line : int
        The line of the cell on which the source begins.
    """

    source: str
    tree: ast.Module
    first_line: int

    @property
    def lines(self) -> list[str]:
        """The source line by line."""
        return split_lines(self.source)


@dataclass(frozen=True, eq=False)
class Definition:
    """A statement of an executed cell that binds a name.

    Attributes
    ----------
    execution_count : int
        The execution count of the cell.
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
        decorators: list[ast.expr] = getattr(node, "decorator_list", [])
        return min([node.lineno, *(decorator.lineno for decorator in decorators)])

    @property
    def line(self) -> int:
        """First line of the statement in its cell."""
        return self.part.first_line + self.first - 1

    @property
    def place(self) -> str:
        """The place in words: ``"In [3], line 2"``."""
        return f"In [{self.execution_count}], line {self.line}"

    def text(self) -> tuple[str, int]:
        """Return the source of the statement with the comments above it, and its first line."""
        node = self.binding.node
        lines = self.part.lines
        shares_line = any(
            other is not node
            and other.lineno <= (node.end_lineno or 0)
            and (other.end_lineno or 0) >= self.first
            for other in _siblings(self.part.tree, node)
        )
        if shares_line:
            # Whole lines would include parts of another statement: `a = 1; b = 2`.
            return ast.unparse(node), self.line
        first = self.first
        indent = " " * node.col_offset
        # Not a comment that begins with `# %%`: in the file it would be read as a marker of a cell.
        while first > 1 and re.match(rf"{indent}#(?! %%)", lines[first - 2]):
            first -= 1
        in_text = _lines_within_text(node)
        selected = [
            line if number in in_text else line.removeprefix(indent)
            for number, line in enumerate(lines[first - 1 : node.end_lineno], first)
        ]
        return "\n".join(selected), self.part.first_line + first - 1


class History:
    """The definitions in the executed cells.

    Parameters
    ----------
    cells
        The source of the cells. The index of a cell is its execution count, as in IPython's
        ``history_manager.input_hist_raw``.
    before
        Only cells with a lower execution count are read.
    """

    def __init__(self, cells: Sequence[str], before: int) -> None:
        self._cells = [(count, cell) for count, cell in enumerate(cells) if 0 < count < before]
        self._by_name: dict[str, list[Definition]] | None = None

    def definitions(self, name: str) -> list[Definition]:
        """Return the definitions of a name, the latest first."""
        if self._by_name is None:
            self._by_name = {}
            for count, cell in self._cells:
                for part in parse_parts(cell):
                    for binding in find_bindings(part.tree.body):
                        self._by_name.setdefault(binding.name, []).append(Definition(count, part, binding))
        return self._by_name.get(name, [])[::-1]

    def changes(self, definition: Definition) -> list[Definition]:
        """Return later changes of a function or class, in order: ``A.x = 1``, ``@kind.register``."""
        name = definition.binding.name
        found: dict[str, Definition] = {}
        for count, cell in self._cells:
            for part in parse_parts(cell):
                for node in part.tree.body:
                    if not _is_change_of(node, name):
                        continue
                    change = Definition(count, part, Binding(name, "other", node))
                    # A change that was executed several times is made once, at its last place.
                    if (count, change.line) > (definition.execution_count, definition.line):
                        text = ast.dump(node)
                        found.pop(text, None)
                        found[text] = change
        return list(found.values())

    def place_in_dag_cell(self, name: str) -> str | None:
        """Return the place where a cell with ``%%temporal_dag`` binds a name."""
        for count, cell in reversed(self._cells):
            for part in parse_parts(cell, _DAG_MAGIC):
                for binding in find_bindings(part.tree.body):
                    if binding.name == name:
                        return Definition(count, part, binding).place
        return None

    def star_imports(self) -> list[str]:
        """Return the modules of executed ``from … import *`` statements, the latest first."""
        return [
            node.module
            for definition in self.definitions("*")
            if isinstance(node := definition.binding.node, ast.ImportFrom) and node.module
        ]

    def future_features(self) -> list[str]:
        """Return the features imported from ``__future__``. In IPython they hold for all later cells."""
        found = {
            alias.name
            for _, cell in self._cells
            for part in parse_parts(cell)
            for node in part.tree.body
            if isinstance(node, ast.ImportFrom) and node.module == "__future__"
            for alias in node.names
        }
        return sorted(found)


@lru_cache(maxsize=1024)
def parse_parts(cell: str, magics: frozenset[str] = _TRANSPARENT_MAGICS) -> tuple[Part, ...]:
    """Parse a cell, or the body of a cell magic that executes its body in the namespace.

    A cell that isn't Python has no parts.

    Parameters
    ----------
    cell
        The source of the cell.
    magics
        The names of such magics. If they aren't the default ones, cells without one of them have no parts.
    """
    return tuple(_parse_parts(cell, 1, magics))


def _parse_parts(cell: str, first_line: int, magics: frozenset[str]) -> Iterator[Part]:
    from IPython.core.inputtransformer2 import TransformerManager

    # `transform_cell` removes blank lines at the beginning.
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
        yield from _parse_parts(magic[1], first_line + 1, _TRANSPARENT_MAGICS)


def _cell_magic(tree: ast.Module) -> tuple[str, str] | None:
    """Return name and body of the cell magic, if the cell has one."""
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


def _is_change_of(node: ast.stmt, name: str) -> bool:
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
    """Return the lines that begin inside a string, where indentation is part of the string."""
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
