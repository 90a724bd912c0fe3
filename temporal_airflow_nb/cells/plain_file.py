"""Compose a cell's DAG as a plain file, without references to the notebook."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from temporal_airflow_nb.cells.captured_code import CapturedCode
from temporal_airflow_nb.cells.imports import format_imports
from temporal_airflow_nb.cells.line_map import split_lines
from temporal_airflow_nb.cells.literals import Imported

_BLOCK = re.compile(r"@|#|(?:async )?def |class ")


@dataclass(frozen=True)
class FileOrigin:
    """The origin of a file: its notebook, its DAGs, and the modules beside the notebook that it imports."""

    notebook: str | None
    dag_ids: Sequence[str]
    local: Sequence[str]

    def lines(self) -> list[str]:
        """Return the origin as lines of text."""
        dags = (
            f"DAG{'s' if len(self.dag_ids) > 1 else ''} {', '.join(self.dag_ids)}" if self.dag_ids else "DAGs"
        )
        lines = [f"{dags}, written from a cell of {self.notebook or 'a notebook'}."]
        if self.local:
            modules = ", ".join(self.local)
            lines += [
                "",
                f"It imports modules beside the notebook, which must be in the DAG folder, too: {modules}.",
            ]
        return lines


def compose_plain_file(
    head: Sequence[str],
    rest: Sequence[str],
    tree: ast.Module,
    captured: CapturedCode,
    future: Sequence[str],
    about: FileOrigin,
) -> str:
    """Return the text of the file.

    Parameters
    ----------
    head, rest
        The lines of the cell that must come first in a file, and the other lines.
    tree
        The syntax tree of the cell.
    captured
        The code of other cells that the cell uses.
    future
        Features to import from ``__future__``.
    about
        The origin of the file.
    """
    imports: Sequence[Imported] = captured.imports
    if imports or captured.chunks:
        own, remaining = _leading_imports(rest, tree, 2 + len(head))
        # If both bind a name, the import of the cell must stay after that of the other cell.
        if not {one.name for one in own} & {one.name for one in set(imports) - set(own)}:
            imports, rest = [*imports, *own], remaining
    lines = _header(about, tree)
    lines += ["", *_stripped(head)] if head else []
    statements = _stripped(list(format_imports(imports, future, {}, about.local)))
    lines += ["", *statements] if statements else []
    before = ""
    texts = [*(chunk.text for chunk in captured.chunks), "\n".join(_stripped(rest))]
    for text in texts:
        apart = _BLOCK.match(text) or _BLOCK.match(before)
        lines += ["", ""] if apart else [""] if not before or text is texts[-1] else []
        lines += split_lines(text)
        before = text
    return "\n".join(lines) + "\n"


def _header(about: FileOrigin, tree: ast.Module) -> list[str]:
    lines = about.lines()
    uses_docstring = any(isinstance(node, ast.Name) and node.id == "__doc__" for node in ast.walk(tree))
    if uses_docstring or ast.get_docstring(tree) is not None:
        return [f"# {line}".rstrip() for line in lines]
    return [f'"""{lines[0]}"""'] if len(lines) == 1 else [f'"""{lines[0]}', *lines[1:], '"""']


def _leading_imports(
    lines: Sequence[str], tree: ast.Module, first_line: int
) -> tuple[list[Imported], Sequence[str]]:
    """Split a cell into its leading imports and the rest. Imports with comments stay in the rest."""
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
    return split_lines("\n".join(lines).strip("\n"))
