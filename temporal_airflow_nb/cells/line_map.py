"""Map lines of a generated DAG file to lines of cells, by the markers in its text.

The kernel and the worker process both use this. It reads nothing but the text of the file.
"""

from __future__ import annotations

import io
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_MARKER = re.compile(r"# %% In \[(\d+)\], line (\d+)\s*$")
_MAGIC_LINE = re.compile(r"# %% In \[(\d+)\]: %%temporal_dag\s*$")
NO_CELL = "# %% of no cell"
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+)')


class CellLine(NamedTuple):
    """A line of a cell, counted from 1. A magic on the first line is line 1.

    >>> str(CellLine(7, 3))
    'In [7], line 3'
    """

    execution_count: int
    line: int

    def __str__(self) -> str:
        return f"In [{self.execution_count}], line {self.line}"


def split_lines(text: str) -> list[str]:
    r"""Split source into lines as Python counts them; ``str.splitlines`` splits at further characters.

    >>> split_lines("a = '\u2028'\r\nb\n")
    ["a = '\u2028'", 'b']
    """
    return [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]


def format_marker(execution_count: int, line: int) -> str:
    """Return the comment that names the cell and the line of the next line."""
    return f"# %% In [{execution_count}], line {line}"


def format_magic_line(execution_count: int) -> str:
    """Return the comment that takes the line of the magic, so that line numbers stay the same."""
    return f"# %% In [{execution_count}]: %%temporal_dag"


def find_cell(source: str, lineno: int) -> CellLine | None:
    """Return the cell and line that a line of a generated file comes from.

    Parameters
    ----------
    source
        The text of the file.
    lineno
        A line of the file, counted from 1.

    Returns
    -------
    CellLine or None
        None if the text isn't a generated file, or if the line was generated, such as the imports at the top.

    Examples
    --------
    >>> text = "import math\\n\\n# %% In [4], line 2\\ndef area(r):\\n    return math.pi * r**2\\n"
    >>> find_cell(text, 5)
    CellLine(execution_count=4, line=3)
    >>> find_cell(text, 1) is None
    True
    """
    lines = split_lines(source)
    if not 1 <= lineno <= len(lines):
        return None
    for index in range(lineno - 1, -1, -1):
        if lines[index] == NO_CELL:
            return None
        if (found := _MAGIC_LINE.match(lines[index])) and index == 0:
            return CellLine(int(found[1]), lineno)
        if found := _MARKER.match(lines[index]):
            return CellLine(int(found[1]), int(found[2]) + lineno - index - 2) if index < lineno - 1 else None
    return None


def lines_around(source: str, lineno: int, distance: int) -> list[tuple[int, str]]:
    """Return the numbered lines around a line; in a generated file, only those of the same cell.

    >>> text = "import math\\n\\n# %% In [4], line 2\\ndef area(r):\\n    return math.pi * r**2\\n"
    >>> lines_around(text, 5, 3)
    [(4, 'def area(r):'), (5, '    return math.pi * r**2')]
    """
    lines = split_lines(source)
    around = range(max(1, lineno - distance), min(len(lines), lineno + distance) + 1)
    cell = find_cell(source, lineno)
    if cell is not None:
        adjacent = [
            n for n in around if find_cell(source, n) == (cell.execution_count, cell.line + n - lineno)
        ]
        written = [n for n in adjacent if lines[n - 1].strip()] or [lineno]
        around = range(written[0], written[-1] + 1)
    return [(n, lines[n - 1]) for n in around]


def find_dag_cell(source: str) -> int | None:
    """Return the execution count of the cell that defines the DAG of a generated file."""
    # That cell is the last part of the file.
    for line in reversed(split_lines(source)):
        if found := _MARKER.match(line) or _MAGIC_LINE.match(line):
            return int(found[1])
    return None


def find_cell_in_file(path: str, lineno: int, *, not_after: float | None = None) -> CellLine | None:
    """Return the cell and line that a line of a generated file comes from, or None.

    Parameters
    ----------
    path
        The file, on this machine.
    lineno
        A line of the file.
    not_after
        Seconds since the epoch. If the file has changed later, its lines aren't those in question.
    """
    file = Path(path)
    try:
        changed = file.stat().st_mtime_ns
        if not_after is not None and changed / 1e9 > not_after:
            return None
        return find_cell(_read_text(path, changed), lineno)
    except (OSError, UnicodeDecodeError):
        return None


def replace_files_with_cells(text: str, *, not_after: float | None = None) -> str:
    """Replace generated files in the text of a traceback with their cells."""

    def place(found: re.Match[str]) -> str:
        cell = find_cell_in_file(found[1], int(found[2]), not_after=not_after)
        return found[0] if cell is None else f"Cell {cell}"

    return _FRAME.sub(place, text)


# The time of the change is part of the key, so that an edited file is read again.
@lru_cache(maxsize=16)
def _read_text(path: str, _changed: int) -> str:
    return Path(path).read_text(encoding="utf-8")
