"""Turn a cell into a DAG file.

``api.submit`` calls this in the kernel's thread that executes cells; the completion calls :func:`find_dag_ids`. Nothing
of the cell is executed. Only :func:`stored_file` writes, and only to the notebook bundle in the stack's state folder.
"""

from __future__ import annotations

import ast
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from temporal_airflow_nb.cells.capture import capture
from temporal_airflow_nb.cells.captured_code import Problem
from temporal_airflow_nb.cells.cell_history import History
from temporal_airflow_nb.cells.dag_file import compose
from temporal_airflow_nb.cells.line_map import find_cell, find_dag_cell, format_magic_line, split_lines
from temporal_airflow_nb.cells.replay import Namespace
from temporal_airflow_nb.checks import preflight
from temporal_airflow_nb.checks.preflight import Finding
from temporal_airflow_nb.config.environment import NOTEBOOK_BUNDLE
from temporal_airflow_nb.errors import DagFileError, DagNotFoundError, InvalidConfError, InvalidInputError

_NOTEBOOK_COMMAND = re.compile(r"\s*(?:[\w, .]+=\s*)?(?:[!%]\w|!|\?\w)|.*\w\?{1,2}$")


@dataclass(frozen=True)
class PreparedCell:
    """A cell as a DAG file.

    Attributes
    ----------
    source : str
        The text of the file, with a marker above each part that names its cell: see
        :func:`temporal_airflow_nb.cells.line_map.find_cell`.
    plain : str
        The DAG as a file without markers and without references to the notebook.
    file_name : str
        Name of the file in the notebook's bundle.
    dag_ids : list of str
        Ids of the DAGs that the source visibly defines.
    findings : list of Finding
        Errors and warnings, with lines of the cell.
    may_make_dags : bool
        Whether the cell can define a DAG, because it calls or imports something.
    names : dict of str
        The names of other cells that the file includes, with their origin: ``"In [3], line 2"``, ``"import"``,
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
    shell_ns: Namespace,
    history: Sequence[str],
    execution_count: int,
    name: str | None,
    folder: Path,
) -> PreparedCell:
    """Turn a cell into a DAG file, with the code of other cells that it uses.

    Nothing of the cell is executed, and no file is written.

    Parameters
    ----------
    cell
        The cell without the line of its magic.
    shell_ns
        The namespace of the notebook.
    history
        The source of the executed cells by execution count: IPython's ``history_manager.input_hist_raw``.
    execution_count
        The execution count of this cell.
    name
        Name of the file; the id of the first DAG if None.
    folder
        The folder of the notebook, from which modules can be imported.

    Raises
    ------
    DagFileError
        The cell isn't Python.
    InvalidInputError
        The name isn't a valid file name.

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
    ('etl.py', {'RETRIES': 'In [1], line 1'}, ['DAG is defined neither in this cell nor in an executed one.'])
    """
    source = make_source(cell, execution_count)
    tree = parse(source)
    captured = capture(tree, shell_ns, History(history, execution_count))
    ids = find_dag_ids(tree)
    file = compose(source, tree, captured, execution_count, folder, ids, _notebook(shell_ns))
    findings = [*map(_finding, captured.problems), *preflight.check(tree, folder)]
    return PreparedCell(
        file.source,
        file.plain,
        choose_file_name(tree, name, execution_count),
        ids,
        sorted(findings, key=lambda finding: finding.line or 0),
        any(isinstance(node, (ast.Call, ast.Import, ast.ImportFrom)) for node in ast.walk(tree)),
        captured.names,
    )


def _notebook(namespace: Namespace) -> str | None:
    """Return the file name of the notebook, which VS Code and Jupyter's server pass to kernels."""
    path = namespace.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or ""
    name = os.path.basename(str(path))
    return name if name.endswith(".ipynb") else None


def _finding(problem: Problem) -> Finding:
    level: Literal["error", "warning"] = "warning" if problem.code == "secret-value" else "error"
    use = problem.use
    return Finding(level, problem.code, problem.message, use.line, problem.hint, task_id=use.task)


def make_source(cell: str, execution_count: int) -> str:
    """Return the body of a cell below a comment that takes the line of its magic."""
    return f"{format_magic_line(execution_count)}\n{cell}"


def parse(source: str) -> ast.Module:
    """Parse the source of a cell.

    Raises
    ------
    DagFileError
        The source isn't Python. ``facts``: ``line``.
    """
    try:
        tree = ast.parse(source)
        # Compiled, too: only that finds errors such as a `return` outside of a function.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<cell>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise _syntax_error(error, source) from None
    except ValueError as error:
        raise DagFileError(f"The cell isn't Python: {error}.") from None
    return tree


def _syntax_error(error: SyntaxError, source: str) -> DagFileError:
    lines = split_lines(source)
    line = error.lineno or 1
    text = lines[line - 1].rstrip() if line <= len(lines) else ""
    place = f"cell line {line}: "
    if _NOTEBOOK_COMMAND.match(text):
        return DagFileError(
            f"{place}`{text.strip()}` is a notebook command, but a DAG file can only contain Python.",
            hint="Move it to another cell, or into a task with subprocess or a BashOperator.",
            line=line,
        )
    if "outside" in str(error.msg) and re.search(r"await|async", str(error.msg)):
        return DagFileError(
            f"{place}{error.msg}. The top level of a DAG file can't await anything.",
            hint="Move it into a task: `@task` takes an `async def`.",
            line=line,
        )
    pointer = f"\n    {text}\n    {' ' * (max(error.offset or 1, 1) - 1)}^" if text.strip() else ""
    return DagFileError(f"{place}{error.msg}{pointer}", line=line)


def find_dag_ids(tree: ast.Module) -> list[str]:
    """Return the ids of the DAGs that a file visibly defines, without running it.

    >>> find_dag_ids(ast.parse("@dag()\\ndef etl(): ...\\netl()\\nDAG('other')"))
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


def choose_file_name(tree: ast.Module, name: str | None, execution_count: int) -> str:
    """Return the name of the cell's file: ``name``, else that of its first DAG, else one by the cell's number.

    Raises
    ------
    InvalidInputError
        The given name isn't a valid file name.
    """
    if name is not None:
        stem = name[:-3] if name.endswith(".py") else name
        if not re.fullmatch(r"\w[\w.-]*", stem):
            raise InvalidInputError(
                f"`--name` {name!r} can't be the name of a DAG file.",
                hint="Use letters, digits, `_`, `-` and `.`.",
            )
        return f"{stem}.py"
    for candidate in [*find_dag_ids(tree), *_computed_ids(tree), *_factory_calls(tree)]:
        return re.sub(r"[^\w.-]", "_", candidate).lstrip(".")[:80] + ".py"
    return f"cell_{execution_count}.py"


def _computed_ids(tree: ast.Module) -> Iterator[str]:
    """Yield names for DAGs whose ids are computed, in functions and loops: ``a_i`` for ``f"a_{i}"``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in ("dag", "DAG"):
            for part in [*node.args[:1], *(k.value for k in node.keywords if k.arg == "dag_id")]:
                yield re.sub(r"^f?['\"]|['\"]$|[{}]", "", ast.unparse(part))


def _factory_calls(tree: ast.Module) -> Iterator[str]:
    """Yield names for top-level calls that may create DAGs, such as ``make_dag("a")``, the last call first."""
    for node in reversed(tree.body):
        if isinstance(node, (ast.Expr, ast.Assign)) and isinstance(node.value, ast.Call):
            yield re.sub(r"\W+", "_", ast.unparse(node.value)).strip("_")


@contextmanager
def stored_file(home: Path, name: str, source: str) -> Iterator[Path]:
    """Store a cell's file in the notebook bundle. If the block refuses it, restore the former file.

    Parameters
    ----------
    home
        The state folder of the stack.
    name
        The name of the file.
    source
        The text of the file.
    """
    folder = home / NOTEBOOK_BUNDLE
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    before = path.read_text(encoding="utf-8") if path.exists() else None
    if before != source:
        _write(path, source)
    # Only if the stack has refused the file. After other errors, such as a lost connection, it may be using the file.
    try:
        yield path
    except (DagFileError, DagNotFoundError, InvalidConfError) as error:
        if before is None:
            path.unlink(missing_ok=True)
        elif before != source:
            _write(path, before)
        raise locate_in_cell(error, path, source) from None


def locate_in_cell(error: InvalidInputError, path: Path, source: str | None = None) -> InvalidInputError:
    """Return an error with cells and their lines in place of a generated file.

    Parameters
    ----------
    error
        An error about the file.
    path
        The file.
    source
        The text of the file; read from it if None.
    """
    if source is None:
        source = path.read_text(encoding="utf-8") if path.exists() else ""

    def place(found: re.Match[str]) -> str:
        return _place(source, int(found[1]))

    message = re.sub(rf"{re.escape(str(path))}(?::|, line )(\d+)", place, error.message)
    facts = dict(error.facts)
    if isinstance(line := facts.get("line"), int):
        cell = find_cell(source, line)
        facts["line"] = cell.line if cell and cell.execution_count == find_dag_cell(source) else None
    if message.startswith(str(path)):
        message = message.replace(str(path), "The cell", 1)
    return type(error)(message.replace(str(path), "the cell"), hint=error.hint, **facts)


def _place(source: str, lineno: int) -> str:
    cell = find_cell(source, lineno)
    if cell is None:
        return f"line {lineno} of the cell's file"
    return f"cell line {cell.line}" if cell.execution_count == find_dag_cell(source) else str(cell)


def _write(path: Path, text: str) -> None:
    # Replaced atomically: Airflow's DAG processor may read the file at any time. The temporary file is in the same
    # folder, because `os.replace` can't move it to another file system. Its name doesn't end like that of a DAG file.
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        # A KeyboardInterrupt, too, must not leave the temporary file behind.
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
