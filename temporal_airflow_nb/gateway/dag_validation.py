"""Checks a parsed DAG file: Airflow's errors, and missing pools, connections and variables.

Runs in the threads of the gateway's pool, after a process has parsed the file. Airflow reports errors of the import
as the text of a traceback only, from which the error and its line are read.
"""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from airflow.models.connection import Connection
from airflow.models.pool import Pool
from airflow.models.variable import Variable
from airflow.serialization.enums import Encoding
from sqlalchemy import select

from temporal_airflow_nb.checks.preflight import Finding, find_uses
from temporal_airflow_nb.errors import DagFileError, PreflightError
from temporal_airflow_nb.tasks.database import reading
from temporal_airflow_nb.tasks.zygotes import signal_name

_SLOW_SECONDS = 3.0

_REGISTER = (
    "Define it in a plugin, a module in the stack's airflow/plugins folder, and start the stack again."
)


def check(path: str, dags: list[Any], seconds: float) -> list[Finding]:
    """
    Return errors that keep the DAGs of a file from running, and warnings.

    Parameters
    ----------
    path
        The file.
    dags
        Its serialized DAGs.
    seconds
        How long the file took to parse.
    """
    tree = _tree(path)
    found = [*_missing_pools(dags, tree), *_future_starts(dags)]
    if tree is not None:
        named = find_uses(tree)
        found += _missing("connection", named.connections, _has_connection)
        found += _missing("variable", named.variables, _has_variable)
    if seconds > _SLOW_SECONDS:
        found.append(
            Finding(
                "warning",
                "slow-import",
                f"Importing the file took {seconds:.1f} s, and happens in each try.",
                None,
                "Move the slow code into a task.",
            )
        )
    return sorted(found, key=lambda finding: finding.line or 0)


def import_error(path: str, trace: str) -> DagFileError:
    """Return the error of a file's import, with the line of the file that raised it."""
    # The last frame in the file itself, which may be above frames of libraries.
    lines = [int(number) for number in re.findall(rf'File "{re.escape(path)}", line (\d+)', trace)]
    line = lines[-1] if lines else None
    what = next(
        (text.strip() for text in reversed(trace.splitlines()) if text.strip()), "it can't be imported"
    )
    if (known := _known_error(path, what, line)) is not None:
        return PreflightError.of([known], path)
    place = f"{path}, line {line}" if line else path
    source = ""
    if line:
        source = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()[line - 1].strip()
    return DagFileError(
        f"{place}: {what}", hint=source or "Correct the file and try again.", path=path, line=line
    )


def _known_error(path: str, what: str, line: int | None) -> Finding | None:
    # The patterns match messages of Airflow. If a version words one differently, the user sees Airflow's message.
    error = partial(Finding, "error")
    tree = _tree(path)
    if (found := re.search(r"DuplicateTaskIdFound: Task id '(.+)' has already", what)) is not None:
        task_id = found[1]
        message = f"Two tasks have the task_id {task_id!r}."
        return error("duplicate-task-id", message, line, "Give one of them another id.", task_id=task_id)
    if (
        found := re.search(r"CycleException: Cycle detected in Dag: (.+)\. Faulty task: (.+)", what)
    ) is not None:
        dag_id, task_id = found.groups()
        message = f"The tasks of DAG {dag_id!r} wait for each other: there is a cycle with {task_id!r} in it."
        hint = "Remove one of the dependencies that close it."
        return error("cycle", message, _line_of_task(tree, task_id), hint, dag_id=dag_id, task_id=task_id)
    if (found := re.search(r"SerializationError: Failed to serialize DAG '(.+?)': (.+)", what)) is not None:
        dag_id, why = found.groups()
        return _not_serializable(dag_id, why, tree)
    if (found := re.search(r"VARIABLE_NOT_FOUND: .*Variable (\S+) not found", what)) is not None:
        message = f"Variable {found[1]!r} is read while the file is imported, and doesn't exist."
        return error("missing-variable", message, line, _fix("variable", found[1]))
    if (found := re.search(r"The conn_id `(.+)` isn't defined", what)) is not None:
        message = f"Connection {found[1]!r} is read while the file is imported, and doesn't exist."
        return error("missing-connection", message, line, _fix("connection", found[1]))
    return None


def _not_serializable(dag_id: str, why: str, tree: ast.Module | None) -> Finding:
    # Airflow imports a DAG file as a module whose name begins with this prefix.
    named = re.search(r"unusual_prefix_\w+?_[^.\s']+\.(\w+)", why)
    if named is None:
        message = f"DAG {dag_id!r} can't be serialized: {why}"
        hint = "Airflow stores each DAG as JSON: use plain values in it."
        return Finding("error", "not-serializable", message, None, hint, dag_id=dag_id)
    message = f"DAG {dag_id!r} can't be serialized: Airflow doesn't know the class {named[1]}."
    line = _line_of(tree, lambda node: isinstance(node, ast.ClassDef) and node.name == named[1])
    return Finding("error", "not-serializable", message, line, _REGISTER, dag_id=dag_id)


def _missing_pools(dags: list[Any], tree: ast.Module | None) -> Iterator[Finding]:
    # A mapped task has its arguments, the pool among them, in `partial_kwargs`.
    wanted = {
        (dag.dag_id, task["task_id"]): pool
        for dag in dags
        for task in (task[Encoding.VAR] for task in dag.data["dag"]["tasks"])
        if (pool := (task.get("partial_kwargs") or task).get("pool"))
    }
    if not wanted:
        return
    with reading() as session:
        there = set(session.scalars(select(Pool.pool).where(Pool.pool.in_(set(wanted.values())))))
    for (dag_id, task_id), pool in wanted.items():
        if pool not in there:
            yield Finding(
                "error",
                "missing-pool",
                f"There is no pool {pool!r}: task {task_id!r} would never start.",
                _line_of_task(tree, task_id),
                f"Create it: airflow pools set {pool} SLOTS DESCRIPTION; or remove pool={pool!r}.",
                dag_id=dag_id,
                task_id=task_id,
            )


def _future_starts(dags: list[Any]) -> Iterator[Finding]:
    for dag in dags:
        start = dag.data["dag"].get("start_date")
        if isinstance(start, (int, float)) and start > time.time():
            date = datetime.fromtimestamp(start, timezone.utc).date()
            message = (
                f"start_date {date} of DAG {dag.dag_id!r} is in the future: a run before it has no tasks."
            )
            yield Finding(
                "warning", "future-start-date", message, None, "Choose a date in the past.", dag_id=dag.dag_id
            )


def _missing(kind: str, named: dict[str, int], exists: Callable[[str], bool]) -> Iterator[Finding]:
    for name, line in named.items():
        if not exists(name):
            yield Finding(
                "warning",
                f"missing-{kind}",
                f"There is no {kind} {name!r}: the task that asks for it will fail.",
                line,
                _fix(kind, name),
            )


def _fix(kind: str, name: str) -> str:
    if kind == "variable":
        return f"Set it: airflow variables set {name} VALUE; or $AIRFLOW_VAR_{name.upper()} before the stack starts."
    return f"Add it: airflow connections add {name} --conn-uri URI; or $AIRFLOW_CONN_{name.upper()} before the start."


def _has_connection(conn_id: str) -> bool:
    from airflow.exceptions import AirflowNotFoundException

    try:
        Connection.get_connection_from_secrets(conn_id)
    except AirflowNotFoundException:
        return False
    # Secrets backends raise errors of any class. One that fails here may still answer the task: no warning.
    except Exception:
        return True
    return True


def _has_variable(key: str) -> bool:
    try:
        return Variable.get_variable_from_secrets(key) is not None
    # As in `_has_connection`.
    except Exception:
        return True


def _tree(path: str) -> ast.Module | None:
    # The file may be a ZIP archive, or have changed since it was parsed. In Python 3.11, `ast.parse` sometimes raises
    # SystemError if several threads use it. Without a tree, findings have no lines.
    try:
        return ast.parse(Path(path).read_bytes())
    except (SyntaxError, ValueError, OSError, SystemError):
        return None


def _line_of_task(tree: ast.Module | None, task_id: str) -> int | None:
    """Return the line that defines a task: its function, or the call with its task_id."""
    name = task_id.rpartition(".")[2]

    def defines_it(node: ast.AST) -> bool:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return node.name == name
        return isinstance(node, ast.Call) and any(
            keyword.arg == "task_id"
            and isinstance(keyword.value, ast.Constant)
            and keyword.value.value == name
            for keyword in node.keywords
        )

    return _line_of(tree, defines_it)


def _line_of(tree: ast.Module | None, wanted: Callable[[ast.AST], bool]) -> int | None:
    nodes: Collection[Any] = [] if tree is None else [node for node in ast.walk(tree) if wanted(node)]
    return min((node.lineno for node in nodes), default=None)


def ended_process(path: str, exit_code: int, timed_out: bool, limit: float) -> DagFileError:
    """Return the error of a file whose process ended before Airflow had parsed the file.

    Parameters
    ----------
    path
        The file.
    exit_code
        The exit code of the process; negative for a signal.
    timed_out
        Whether the process was killed because it took too long.
    limit
        The limit, in seconds.
    """
    if timed_out:
        message = f"{path} took longer than {limit:g} s to import, in code that Python can't interrupt."
        hint = "Move the slow code into a task, or raise [core] dagbag_import_timeout."
    elif exit_code < 0:
        message = f"{path} ended the process that imported it: {signal_name(-exit_code)}."
        hint = "A library crashed. Import what the file imports in a Python of your own to find it."
    else:
        message = f"{path} ended the process that imported it, with exit code {exit_code}."
        hint = "Look for sys.exit() or os._exit() at its top level."
    return DagFileError(message, hint=hint, path=path, line=None)
