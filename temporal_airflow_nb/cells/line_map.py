"""Which line of which cell a line of a generated DAG file comes from. Text alone, for both sides of the gateway."""

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
    """A line of a cell, counted from 1 as the front end does: a magic on the first line is line 1.

    >>> str(CellLine(7, 3))
    'In [7], line 3'
    """

    execution_count: int
    line: int

    def __str__(self) -> str:
        return f"In [{self.execution_count}], line {self.line}"


def lines_of(text: str) -> list[str]:
    r"""Return the lines of source as Python counts them: not all that ``splitlines`` parts at ends one.

    >>> lines_of("a = '\u2028'\r\nb\n")
    ["a = '\u2028'", 'b']
    """
    return [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]


def marker(execution_count: int, line: int) -> str:
    """Return the comment that says of which cell, and of which of its lines, the next line of the file is."""
    return f"# %% In [{execution_count}], line {line}"


def magic_line(execution_count: int) -> str:
    """Return the comment that stands for the magic's line, so that lines of the file are those of the cell."""
    return f"# %% In [{execution_count}]: %%temporal_dag"


def cell_of(source: str, lineno: int) -> CellLine | None:
    """Return where a line of a generated file comes from.

    Parameters
    ----------
    source
        The file's text.
    lineno
        A line of it, counted from 1.

    Returns
    -------
    CellLine or None
        None where the text is no cell's, or the line is one that was generated, as the imports at the top.

    Examples
    --------
    >>> text = "import math\\n\\n# %% In [4], line 2\\ndef area(r):\\n    return math.pi * r**2\\n"
    >>> cell_of(text, 5)
    CellLine(execution_count=4, line=3)
    >>> cell_of(text, 1) is None
    True
    """
    lines = lines_of(source)
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
    """Return the numbered lines around one; of a generated file only those that stand by it in the cell, too.

    >>> text = "import math\\n\\n# %% In [4], line 2\\ndef area(r):\\n    return math.pi * r**2\\n"
    >>> lines_around(text, 5, 3)
    [(4, 'def area(r):'), (5, '    return math.pi * r**2')]
    """
    lines = lines_of(source)
    around = range(max(1, lineno - distance), min(len(lines), lineno + distance) + 1)
    cell = cell_of(source, lineno)
    if cell is not None:
        beside = [n for n in around if cell_of(source, n) == (cell.execution_count, cell.line + n - lineno)]
        written = [n for n in beside if lines[n - 1].strip()] or [lineno]
        around = range(written[0], written[-1] + 1)
    return [(n, lines[n - 1]) for n in around]


def own_cell(source: str) -> int | None:
    """Return the execution count of the cell whose DAG a generated file holds: its last part is that cell's."""
    for line in reversed(lines_of(source)):
        if found := _MARKER.match(line) or _MAGIC_LINE.match(line):
            return int(found[1])
    return None


def cell_of_file(path: str, lineno: int, *, not_after: float | None = None) -> CellLine | None:
    """Return where a line of a generated file on this machine comes from; None where that can't be known.

    Parameters
    ----------
    path
        The file.
    lineno
        A line of it.
    not_after
        Seconds since the epoch: what has changed later is not what is asked about.
    """
    file = Path(path)
    try:
        changed = file.stat().st_mtime_ns
        if not_after is not None and changed / 1e9 > not_after:
            return None
        return cell_of(_text(path, changed), lineno)
    except (OSError, UnicodeDecodeError):
        return None


def with_cells(text: str, *, not_after: float | None = None) -> str:
    """Return a traceback's text with the cells in place of their generated files."""

    def place(found: re.Match[str]) -> str:
        cell = cell_of_file(found[1], int(found[2]), not_after=not_after)
        return found[0] if cell is None else f"Cell {cell}"

    return _FRAME.sub(place, text)


@lru_cache(maxsize=16)
def _text(path: str, _changed: int) -> str:
    return Path(path).read_text(encoding="utf-8")
