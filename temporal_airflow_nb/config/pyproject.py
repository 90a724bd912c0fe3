"""Reads a project's settings: ``[tool.temporal-airflow-nb]`` of the nearest ``pyproject.toml``."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from temporal_airflow_nb.errors import InvalidInputError

TABLE = "temporal-airflow-nb"


def settings(folder: Path | None = None) -> tuple[Path | None, dict[str, Any]]:
    """Return the path of the nearest ``pyproject.toml`` and its settings.

    Without such a file, the result is ``(None, {})``. Dashes in the names of settings are replaced by underscores.
    Values aren't checked.

    Parameters
    ----------
    folder
        The folder in which the search begins, upwards; the working directory if omitted.

    Raises
    ------
    InvalidInputError
        The file isn't TOML, or ``tool.temporal-airflow-nb`` isn't a table.
    """
    try:
        start = folder or Path.cwd()
    except FileNotFoundError:
        # The working directory was deleted.
        return None, {}
    for parent in (start, *start.parents):
        path = parent / "pyproject.toml"
        try:
            stamp = path.stat()
        except OSError:
            continue
        return path, _read(path, stamp.st_mtime_ns, stamp.st_size)
    return None, {}


@lru_cache(maxsize=8)
def _read(path: Path, *_: int) -> dict[str, Any]:
    # Cached by path, time of change and size: an edited file is read again. Most project files don't have the table,
    # and aren't parsed.
    text = path.read_text(encoding="utf-8", errors="replace")
    if TABLE not in text:
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        found = tomllib.loads(text).get("tool", {}).get(TABLE, {})
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(
            f"{path} isn't TOML: {error}", hint="Correct the file.", path=str(path)
        ) from None
    if not isinstance(found, dict):
        raise InvalidInputError(
            f"{path}: tool.{TABLE} isn't a table.", hint=f"Begin it with [tool.{TABLE}].", path=str(path)
        )
    return {name.replace("-", "_"): value for name, value in found.items()}


def home() -> Path | None:
    """Return the state folder that the project names, relative to its ``pyproject.toml``; None if it names none."""
    path, found = settings()
    chosen = found.get("home")
    if path is None or chosen is None:
        return None
    if not isinstance(chosen, str) or not chosen:
        raise InvalidInputError(
            f"{path}: home is {chosen!r}.", hint="Give the path of a folder, in quotes.", path=str(path)
        )
    return path.parent / Path(chosen).expanduser()
