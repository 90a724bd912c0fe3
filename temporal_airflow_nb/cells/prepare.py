"""Cells as DAG files."""

from __future__ import annotations

import ast
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from temporal_airflow_nb.cells.capture import capture
from temporal_airflow_nb.cells.captured_names import Problem
from temporal_airflow_nb.cells.cell_history import History
from temporal_airflow_nb.cells.dag_file import compose
from temporal_airflow_nb.cells.line_map import cell_of, lines_of, magic_line, own_cell
from temporal_airflow_nb.checks import preflight
from temporal_airflow_nb.checks.preflight import Finding
from temporal_airflow_nb.config.environment import NOTEBOOK_BUNDLE
from temporal_airflow_nb.errors import DagFileError, DagNotFoundError, InvalidConfError, InvalidInputError

_NOT_PYTHON = re.compile(r"\s*(?:[\w, .]+=\s*)?(?:[!%]\w|!|\?\w)|.*\w\?{1,2}$")


@dataclass(frozen=True)
class PreparedCell:
    """A cell as a DAG file.

    Attributes
    ----------
    source : str
        The file's text, with marks of the cells that its parts come from: see
        :func:`temporal_airflow_nb.cells.line_map.cell_of`.
    plain : str
        The same as a file that has nothing to do with a notebook.
    file_name : str
        Name of the file in the notebook's bundle.
    dag_ids : list of str
        The DAGs that it says it defines.
    findings : list of Finding
        What is wrong with it, or may be; lines are the cell's.
    may_make_dags : bool
        Whether anything in the cell can make a DAG: it calls or imports something.
    names : dict of str
        What of other cells was taken along, and as what: ``"In [3], line 2"``, ``"import"``,
        ``"value of In [2], line 1"``.
    """

    source: str
    plain: str
    file_name: str
    dag_ids: list[str]
    findings: list[Finding]
    may_make_dags: bool
    names: dict[str, str]


def prepare(
    cell: str,
    *,
    shell_ns: Mapping[str, Any],
    history: Sequence[str],
    execution_count: int,
    name: str | None,
    folder: Path,
) -> PreparedCell:
    """Make a cell a DAG file, with what it uses of the cells before it. Nothing is executed or written.

    Parameters
    ----------
    cell
        The cell without the line of its magic.
    shell_ns
        The notebook's namespace.
    history
        The executed cells as they were entered, by execution count: IPython's ``history_manager.input_hist_raw``.
    execution_count
        Of this cell.
    name
        Name of the file; after the first DAG if None.
    folder
        The notebook's: modules that lie there can be imported.

    Raises
    ------
    DagFileError
        The cell isn't Python.
    InvalidInputError
        The name can't be that of a file.

    Examples
    --------
    >>> prepared = prepare(
    ...     "DAG('etl', default_args={'retries': RETRIES})",
    ...     shell_ns={"RETRIES": 2},
    ...     history=["", "RETRIES = 2"],
    ...     execution_count=2,
    ...     name=None,
    ...     folder=Path(),
    ... )
    >>> prepared.file_name, prepared.names, [finding.message for finding in prepared.findings]
    ('etl.py', {'RETRIES': 'In [1], line 1'}, ["DAG isn't defined, neither in this cell nor in one that was executed."])
    """
    source = source_of(cell, execution_count)
    tree = parse(source)
    captured = capture(tree, shell_ns, History(history, execution_count))
    ids = dag_ids(tree)
    file = compose(source, tree, captured, execution_count, folder, ids, _notebook(shell_ns))
    findings = [*map(_finding, captured.problems), *preflight.check(tree, folder)]
    return PreparedCell(
        file.source,
        file.plain,
        file_name(tree, name, execution_count),
        ids,
        sorted(findings, key=lambda finding: finding.line or 0),
        any(isinstance(node, (ast.Call, ast.Import, ast.ImportFrom)) for node in ast.walk(tree)),
        captured.names,
    )


def _notebook(namespace: Mapping[str, Any]) -> str | None:
    """Return the notebook's name, as VS Code and Jupyter's server tell it to kernels."""
    path = namespace.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or ""
    name = os.path.basename(str(path))
    return name if name.endswith(".ipynb") else None


def _finding(problem: Problem) -> Finding:
    level: Literal["error", "warning"] = "warning" if problem.code == "secret-value" else "error"
    use = problem.use
    return Finding(level, problem.code, problem.message, use.line, problem.hint, task_id=use.task)


def source_of(cell: str, execution_count: int) -> str:
    """Return a cell's body below a line that stands for its magic, so that its lines are those of the cell."""
    return f"{magic_line(execution_count)}\n{cell}"


def parse(source: str) -> ast.Module:
    """Return the syntax tree of a cell's text.

    Raises
    ------
    DagFileError
        It isn't Python. ``facts``: ``line``.
    """
    try:
        tree = ast.parse(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<cell>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise _syntax_error(error, source) from None
    except ValueError as error:
        raise DagFileError(f"the cell isn't Python: {error}") from None
    return tree


def _syntax_error(error: SyntaxError, source: str) -> DagFileError:
    lines = lines_of(source)
    line = error.lineno or 1
    text = lines[line - 1].rstrip() if line <= len(lines) else ""
    place = f"cell line {line}: "
    if _NOT_PYTHON.match(text):
        return DagFileError(
            f"{place}`{text.strip()}` is a command of the notebook, and a DAG file is Python alone",
            hint="Move it to a cell of its own, or into a task with subprocess or a BashOperator.",
            line=line,
        )
    if "outside" in str(error.msg) and re.search(r"await|async", str(error.msg)):
        return DagFileError(
            f"{place}{error.msg}: nothing awaits the top level of a DAG file",
            hint="Move it into a task: `@task` takes an `async def`.",
            line=line,
        )
    pointer = f"\n    {text}\n    {' ' * (max(error.offset or 1, 1) - 1)}^" if text.strip() else ""
    return DagFileError(f"{place}{error.msg}{pointer}", line=line)


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
    for made in [*dag_ids(tree), *_made_ids(tree), *_made_by(tree)]:
        return re.sub(r"[^\w.-]", "_", made).lstrip(".")[:80] + ".py"
    return f"cell_{execution_count}.py"


def _made_ids(tree: ast.Module) -> Iterator[str]:
    """Yield what the ids of DAGs that are made in functions and loops look like: ``f"a_{i}"`` as ``a_i``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in ("dag", "DAG"):
            for part in [*node.args[:1], *(k.value for k in node.keywords if k.arg == "dag_id")]:
                yield re.sub(r"^f?['\"]|['\"]$|[{}]", "", ast.unparse(part))


def _made_by(tree: ast.Module) -> Iterator[str]:
    """Yield the calls by which other code is to make DAGs, as ``make_dag("a")``, the last one first."""
    for node in reversed(tree.body):
        if isinstance(node, (ast.Expr, ast.Assign)) and isinstance(node.value, ast.Call):
            yield re.sub(r"\W+", "_", ast.unparse(node.value)).strip("_")


@contextmanager
def placed(home: Path, name: str, source: str) -> Iterator[Path]:
    """Have a cell's file in the notebook bundle; the one before comes back if this one is refused.

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
    except (DagFileError, DagNotFoundError, InvalidConfError) as error:
        if before is None:
            path.unlink(missing_ok=True)
        elif before != source:
            _write(path, before)
        raise in_cell(error, path, source) from None


def in_cell(error: InvalidInputError, path: Path, source: str | None = None) -> InvalidInputError:
    """Return an error speaking of cells in place of their file.

    Parameters
    ----------
    error
        What was said of the file.
    path
        The file.
    source
        Its text; read from it if None.
    """
    if source is None:
        source = path.read_text(encoding="utf-8") if path.exists() else ""

    def place(found: re.Match[str]) -> str:
        return _place(source, int(found[1]))

    message = re.sub(rf"{re.escape(str(path))}(?::|, line )(\d+)", place, error.message)
    facts = dict(error.facts)
    if isinstance(line := facts.get("line"), int):
        cell = cell_of(source, line)
        facts["line"] = cell.line if cell and cell.execution_count == own_cell(source) else None
    return type(error)(message.replace(str(path), "the cell"), hint=error.hint, **facts)


def _place(source: str, lineno: int) -> str:
    cell = cell_of(source, lineno)
    if cell is None:
        return f"line {lineno} of the cell's file"
    return f"cell line {cell.line}" if cell.execution_count == own_cell(source) else str(cell)


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
