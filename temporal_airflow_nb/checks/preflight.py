"""Check the source of a DAG before it runs.

Only mistakes that are certain from the source are reported.
"""

from __future__ import annotations

import ast
from pathlib import Path

from temporal_airflow_nb.checks import airflow_objects, calls, dates, dependencies, paths
from temporal_airflow_nb.checks.airflow_objects import Uses
from temporal_airflow_nb.checks.finding import Finding

__all__ = ["Finding", "Uses", "check", "find_uses"]

_CHECKS = (calls.uncalled_dags, dependencies.check, dates.check, calls.slow_calls)


def check(source: str | ast.Module, folder: Path | None = None) -> list[Finding]:
    """Find errors and possible errors in the DAGs of some source. Takes a few milliseconds.

    Parameters
    ----------
    source
        Python source, or its syntax tree.
    folder
        The folder of the notebook, if the source is a cell.

    Raises
    ------
    SyntaxError
        The source isn't Python.

    Examples
    --------
    >>> [found] = check("from airflow.sdk import dag\\n@dag\\ndef etl(): ...")
    >>> found.level, found.code, found.line, found.hint
    ('error', 'uncalled-dag', 3, 'Call it at the end: `etl()`.')
    """
    tree = ast.parse(source) if isinstance(source, str) else source
    found = [finding for run in _CHECKS for finding in run(tree)]
    if folder is not None:
        found += paths.relative_paths(tree, folder)
    return sorted(dict.fromkeys(found), key=lambda finding: finding.line or 0)


def find_uses(source: str | ast.Module) -> Uses:
    """Return the connections, variables and pools that source uses, with the line of the first use.

    Variables with a default aren't included, because they needn't exist.

    Examples
    --------
    >>> find_uses("BashOperator(task_id='a', pool='small', bash_command='echo {{ var.value.day }} {{ conn.db.host }}')")
    Uses(connections={'db': 1}, variables={'day': 1}, pools={'small': 1})
    """
    return airflow_objects.find_uses(ast.parse(source) if isinstance(source, str) else source)
