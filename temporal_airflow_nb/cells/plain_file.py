"""A cell's DAG as a file that has nothing to do with a notebook."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from temporal_airflow_nb.cells.captured_names import Captured
from temporal_airflow_nb.cells.imports import import_lines
from temporal_airflow_nb.cells.line_map import lines_of
from temporal_airflow_nb.cells.literals import Imported

_BLOCK = re.compile(r"@|#|(?:async )?def |class ")


@dataclass(frozen=True)
class About:
    """Where a file comes from: the notebook, the cell's DAGs, and the modules beside the notebook that it imports."""

    notebook: str | None
    dag_ids: Sequence[str]
    local: Sequence[str]

    def lines(self) -> list[str]:
        """Return it as prose."""
        named = (
            f"DAG{'s' if len(self.dag_ids) > 1 else ''} {', '.join(self.dag_ids)}" if self.dag_ids else "DAGs"
        )
        told = [f"{named}, written from a cell of {self.notebook or 'a notebook'}."]
        if self.local:
            modules = ", ".join(self.local)
            told += [
                "",
                f"It imports from beside the notebook, so this has to be in the DAG folder too: {modules}.",
            ]
        return told


def plain_file(
    head: Sequence[str],
    rest: Sequence[str],
    tree: ast.Module,
    captured: Captured,
    future: Sequence[str],
    about: About,
) -> str:
    """Return the text of the file.

    Parameters
    ----------
    head, rest
        The cell: what a file has to begin with, and what follows.
    tree
        The cell's syntax tree.
    captured
        What it uses of other cells.
    future
        Features of ``__future__`` to import.
    about
        Where it comes from.
    """
    imports: Sequence[Imported] = captured.imports
    if imports or captured.chunks:
        own, remaining = _leading_imports(rest, tree, 2 + len(head))
        # Of two imports under one name the cell's comes later.
        if not {one.name for one in own} & {one.name for one in set(imports) - set(own)}:
            imports, rest = [*imports, *own], remaining
    lines = _header(about, tree)
    lines += ["", *_stripped(head)] if head else []
    statements = _stripped(list(import_lines(imports, future, {}, about.local)))
    lines += ["", *statements] if statements else []
    before = ""
    texts = [*(chunk.text for chunk in captured.chunks), "\n".join(_stripped(rest))]
    for text in texts:
        apart = _BLOCK.match(text) or _BLOCK.match(before)
        lines += ["", ""] if apart else [""] if not before or text is texts[-1] else []
        lines += lines_of(text)
        before = text
    return "\n".join(lines) + "\n"


def _header(about: About, tree: ast.Module) -> list[str]:
    told = about.lines()
    uses_docstring = any(isinstance(node, ast.Name) and node.id == "__doc__" for node in ast.walk(tree))
    if uses_docstring or ast.get_docstring(tree) is not None:
        return [f"# {line}".rstrip() for line in told]
    return [f'"""{told[0]}"""'] if len(told) == 1 else [f'"""{told[0]}', *told[1:], '"""']


def _leading_imports(
    lines: Sequence[str], tree: ast.Module, first_line: int
) -> tuple[list[Imported], Sequence[str]]:
    """Part a cell into the imports that it begins with, and the rest; comments stay where they are."""
    found: list[Imported] = []
    end = first_line
    for node in tree.body:
        if node.lineno < first_line:
            continue
        plain = isinstance(node, ast.Import) or (
            isinstance(node, ast.ImportFrom) and node.module and not node.level and node.names[0].name != "*"
        )
        text = "\n".join(lines[end - first_line : node.end_lineno - first_line + 1])  # type: ignore[operator]
        if not plain or "#" in text or ";" in text:
            break
        found += _imports_of(node)
        end = (node.end_lineno or node.lineno) + 1
    return found, lines[end - first_line :]


def _imports_of(node: ast.stmt) -> list[Imported]:
    if isinstance(node, ast.Import):
        return [Imported(a.name, None, a.asname or a.name.split(".")[0]) for a in node.names]
    assert isinstance(node, ast.ImportFrom)
    return [Imported(str(node.module), a.name, a.asname or a.name) for a in node.names]


def _stripped(lines: Sequence[str]) -> list[str]:
    return lines_of("\n".join(lines).strip("\n"))
