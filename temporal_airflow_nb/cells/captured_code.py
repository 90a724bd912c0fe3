"""The code of other cells that a cell's file includes."""

from __future__ import annotations

from dataclasses import dataclass, field

from temporal_airflow_nb.cells.literals import Imported
from temporal_airflow_nb.cells.used_names import Use


@dataclass(eq=False)
class Chunk:
    """A piece of source to include.

    Attributes
    ----------
    text : str
        The source, without a final line break.
    execution_count, line : int or None
        The cell and the line of its first line, if known.
    needs : set of str
        The names that it uses.
    used_at_once : set of str
        The names that it uses while it is executed, not only when it is called later.
    """

    text: str
    execution_count: int | None
    line: int | None
    needs: set[str]
    used_at_once: set[str]

    @property
    def end(self) -> int:
        """The line of the cell after this piece."""
        return (self.line or 0) + self.text.count("\n") + 1


@dataclass(frozen=True)
class Problem:
    """A name that can't be included, or shouldn't be.

    Attributes
    ----------
    name : str
        The name.
    code : str
        ``"unknown-name"``, ``"captured-name"``, or ``"secret-value"``, which is a warning.
    use : Use
        The use in the cell that needs the name.
    message, hint : str
        The problem, and what to do instead.
    """

    name: str
    code: str
    use: Use
    message: str
    hint: str


@dataclass
class CapturedCode:
    """The code of other cells that a cell's file includes.

    Attributes
    ----------
    imports : list of Imported
        Imports, without those of ``__future__``.
    chunks : list of Chunk
        Pieces of source in the order in which they must be executed.
    future : list of str
        Features of ``__future__`` that the source relies on.
    names : dict of str
        The origin of each included name: ``"In [3], line 2"``, ``"import"``, ``"value of In [2], line 1"``.
    problems : list of Problem
        The names that can't be included.
    """

    imports: list[Imported] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    future: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
