"""Compose the text of a cell's DAG file."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from temporal_airflow_nb.cells import local_modules
from temporal_airflow_nb.cells.captured_code import CapturedCode
from temporal_airflow_nb.cells.imports import format_imports
from temporal_airflow_nb.cells.line_map import NO_CELL, format_marker, split_lines
from temporal_airflow_nb.cells.plain_file import FileOrigin, compose_plain_file


class DagFile(NamedTuple):
    """The text of a cell's file, with and without markers that name the cells."""

    source: str
    plain: str


def compose(
    cell: str,
    tree: ast.Module,
    captured: CapturedCode,
    execution_count: int,
    folder: Path,
    dag_ids: Sequence[str],
    notebook: str | None,
) -> DagFile:
    """Return a cell's file: the captured code of other cells, then the cell.

    Parameters
    ----------
    cell
        The cell, with a comment in place of its magic as the first line.
    tree
        The syntax tree of the cell.
    captured
        The code of other cells that the cell uses.
    execution_count
        The execution count of the cell.
    folder
        The folder of the notebook.
    dag_ids
        Ids of the DAGs that the cell visibly defines.
    notebook
        The name of the notebook, if known.
    """
    modules = local_modules.find_imported_modules(tree) | {
        needed.module.split(".")[0] for needed in captured.imports
    }
    for chunk in captured.chunks:
        modules |= local_modules.find_imported_modules(ast.parse(chunk.text))
    folders = local_modules.find_folders(modules, folder)
    head, rest = _split(cell, tree)
    future = [name for name in captured.future if name not in _future_of(tree)]
    imports = list(format_imports(captured.imports, future, folders))
    about = FileOrigin(notebook, dag_ids, [module for modules in folders.values() for module in modules])
    plain = compose_plain_file(head, rest, tree, captured, future, about)
    if not (captured.chunks or imports):
        return DagFile(cell, plain)
    blank = next((index for index, line in enumerate(rest) if line.strip()), 0)
    lines = [f"# The DAG of In [{execution_count}] and what it uses of other cells."]
    if head:
        lines += [format_marker(execution_count, 2), *head]
    lines += ["", *imports[:-1]] if imports else []
    end: tuple[int | None, int] = (None, 0)
    for chunk in captured.chunks:
        if chunk.execution_count is None or chunk.line is None:
            lines += ["", *([NO_CELL] if end[0] else []), chunk.text]
            end = None, 0
            continue
        count, line = end
        if count == chunk.execution_count and 0 <= chunk.line - line <= 2:
            # The pieces follow each other in their cell, too, so one marker is enough if the distance stays.
            lines += [""] * (chunk.line - line)
        else:
            lines += ["", "", format_marker(chunk.execution_count, chunk.line)]
        lines += split_lines(chunk.text)
        end = chunk.execution_count, chunk.end
    lines += ["", "", format_marker(execution_count, 2 + len(head) + blank), *rest[blank:]]
    return DagFile("\n".join(lines) + "\n", plain)


def _split(cell: str, tree: ast.Module) -> tuple[list[str], list[str]]:
    """Split a cell into its docstring and ``__future__`` imports, and the rest.

    Python requires the first part at the beginning of a file, so before the code of other cells.
    """
    lines = split_lines(cell)[1:]
    end = 1
    for index, node in enumerate(tree.body):
        is_docstring = index == 0 and ast.get_docstring(tree, clean=False) is not None
        if not is_docstring and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            break
        end = node.end_lineno or end
    return lines[: end - 1], lines[end - 1 :]


def _future_of(tree: ast.Module) -> set[str]:
    return {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        for alias in node.names
    }
