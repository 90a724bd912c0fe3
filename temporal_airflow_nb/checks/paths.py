"""Find relative paths of files in the notebook's folder: tasks run in another folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from temporal_airflow_nb.checks.finding import Finding
from temporal_airflow_nb.checks.syntax import dotted, text_of

_MAX_LENGTH = 250


def relative_paths(tree: ast.Module, folder: Path) -> Iterator[Finding]:
    """Find calls that open a file of the notebook's folder by a relative path."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        function = dotted(node.func)[-1:]
        name = text_of(node.args[0])
        reads = function and (function[0] in ("open", "Path") or function[0].startswith(("read_", "scan_")))
        if not reads or not name or len(name) > _MAX_LENGTH or "\0" in name or Path(name).is_absolute():
            continue
        file = folder.resolve() / name
        if file.is_file():
            yield Finding(
                "warning",
                "relative-path",
                f"{name!r} is a file in the notebook's folder, but tasks run in another folder.",
                node.args[0].lineno,
                f"Use the absolute path: {str(file)!r}.",
            )
