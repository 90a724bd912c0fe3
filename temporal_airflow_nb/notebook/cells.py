"""Cells as DAG files."""

from __future__ import annotations

import ast
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporal_airflow_nb.config import NOTEBOOK_BUNDLE
from temporal_airflow_nb.errors import DagFileError, DagNotFoundError, InvalidInputError
from temporal_airflow_nb.notebook.preflight import Finding

# The first line of the file stands for the magic, so that line numbers are those of the cell.
_FIRST_LINE = "# %%temporal_dag\n"


def source_of(cell: str) -> str:
    """Return the text of the DAG file for a cell's body."""
    return _FIRST_LINE + cell


def parse(source: str) -> ast.Module:
    """Return the syntax tree of a cell's file.

    Raises
    ------
    DagFileError
        It isn't Python. ``facts``: ``line``.
    """
    try:
        return ast.parse(source)
    except SyntaxError as error:
        text = (error.text or "").rstrip("\n")
        pointer = f"\n    {text}\n    {' ' * (max(error.offset or 1, 1) - 1)}^" if text.strip() else ""
        raise DagFileError(f"cell line {error.lineno}: {error.msg}{pointer}", line=error.lineno) from None
    except ValueError as error:
        raise DagFileError(f"the cell isn't Python: {error}") from None


def dag_ids(tree: ast.Module) -> list[str]:
    """Return the ids of the DAGs that a file says it defines, without running it.

    >>> dag_ids(ast.parse("@dag()\\ndef etl(): ...\\netl()\\nDAG('other')"))
    ['etl', 'other']
    """
    names = {"dag", "DAG"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "airflow":
            names |= {alias.asname for alias in node.names if alias.name in ("dag", "DAG") and alias.asname}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for decorator in node.decorator_list:
                call = decorator if isinstance(decorator, ast.Call) else None
                if _name(call.func if call else decorator) in names:
                    found.append((node.lineno, (call and _literal_id(call)) or node.name))
        elif isinstance(node, (ast.With, ast.AsyncWith, ast.Assign, ast.AnnAssign, ast.Expr)):
            for call in _calls(node):
                if _name(call.func) in names and (dag_id := _literal_id(call)):
                    found.append((node.lineno, dag_id))
    return list(dict.fromkeys(dag_id for _, dag_id in sorted(found)))


def file_name(tree: ast.Module, name: str | None, execution_count: int) -> str:
    """Return the name of the cell's file: as asked for, else after its first DAG, else after the cell.

    Raises
    ------
    InvalidInputError
        The name asked for can't be that of a file.
    """
    if name is not None:
        stem = name[:-3] if name.endswith(".py") else name
        if not re.fullmatch(r"\w[\w.-]*", stem):
            raise InvalidInputError(
                f"--name {name!r} can't be the name of a DAG file.",
                hint="Use letters, digits, `_`, `-` and `.`.",
            )
        return f"{stem}.py"
    for dag_id in dag_ids(tree):
        return re.sub(r"[^\w.-]", "_", dag_id).lstrip(".") + ".py"
    return f"cell_{execution_count}.py"


@contextmanager
def placed(home: Path, name: str, source: str) -> Iterator[Path]:
    """Have a cell's file in the notebook bundle; the one before comes back if it is no DAG file.

    Parameters
    ----------
    home
        The stack's state folder.
    name
        The file's name.
    source
        Its text.
    """
    folder = home / NOTEBOOK_BUNDLE
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    before = path.read_text(encoding="utf-8") if path.exists() else None
    if before != source:
        _write(path, source)
    try:
        yield path
    except (DagFileError, DagNotFoundError) as error:
        if before is None:
            path.unlink(missing_ok=True)
        elif before != source:
            _write(path, before)
        raise in_cell(error, path) from None


def in_cell(error: InvalidInputError, path: Path) -> InvalidInputError:
    """Return the error speaking of the cell in place of its file: their lines are the same."""
    message = re.sub(rf"{re.escape(str(path))}(?::|, line )(\d+)", r"cell line \1", error.message)
    return type(error)(message.replace(str(path), "the cell"), hint=error.hint, **error.facts)


def _write(path: Path, text: str) -> None:
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _literal_id(call: ast.Call) -> str | None:
    candidates = [*call.args[:1], *(k.value for k in call.keywords if k.arg == "dag_id")]
    return next(
        (c.value for c in candidates if isinstance(c, ast.Constant) and isinstance(c.value, str)), None
    )


def _calls(statement: ast.stmt) -> Iterator[ast.Call]:
    if isinstance(statement, (ast.With, ast.AsyncWith)):
        expressions = [item.context_expr for item in statement.items]
    else:
        expressions = [value] if isinstance(value := getattr(statement, "value", None), ast.expr) else []
    for expression in expressions:
        yield from (node for node in ast.walk(expression) if isinstance(node, ast.Call))


@dataclass(frozen=True)
class PreparedCell:
    """A cell as a DAG file."""

    source: str
    plain: str
    file_name: str
    dag_ids: list[str]
    findings: list[Finding]
    names: dict[str, str]


def prepare(
    cell: str,
    *,
    shell_ns: Mapping[str, Any],  # noqa: ARG001
    history: Sequence[str],  # noqa: ARG001
    execution_count: int,
    name: str | None,
    folder: Path,  # noqa: ARG001
) -> PreparedCell:
    """Return the file that a cell becomes."""
    source = source_of(cell)
    tree = parse(source)
    return PreparedCell(source, cell, file_name(tree, name, execution_count), dag_ids(tree), [], {})
