"""What a cell's file holds beside the cell."""

from __future__ import annotations

from dataclasses import dataclass, field

from temporal_airflow_nb.cells.literals import Imported
from temporal_airflow_nb.cells.used_names import Use


@dataclass(eq=False)
class Chunk:
    """Source that goes into the file.

    Attributes
    ----------
    text : str
        The source, without a line break at its end.
    execution_count, line : int or None
        Cell and line that it comes from, if known.
    needs : set of str
        The names that it uses.
    at_once : set of str
        Those of them that it uses when it is executed, not only when it is called later.
    """

    text: str
    execution_count: int | None
    line: int | None
    needs: set[str]
    at_once: set[str]

    @property
    def end(self) -> int:
        """The line of its cell behind it."""
        return (self.line or 0) + self.text.count("\n") + 1


@dataclass(frozen=True)
class Problem:
    """A name that can't be had in the file.

    Attributes
    ----------
    name : str
        The name.
    code : str
        ``"unknown-name"``, ``"captured-name"``, or ``"secret-value"``, which is a warning.
    use : Use
        Where the cell itself needs it.
    message, hint : str
        What is wrong, and what to do instead.
    """

    name: str
    code: str
    use: Use
    message: str
    hint: str


@dataclass
class Captured:
    """What goes into a cell's file beside the cell.

    Attributes
    ----------
    imports : list of Imported
        Imports, without those of ``__future__``.
    chunks : list of Chunk
        Source, in the order in which it has to be executed.
    future : list of str
        Features of ``__future__`` that the source was written with.
    names : dict of str
        What each name taken along is: ``"In [3], line 2"``, ``"import"``, ``"value of In [2], line 1"``.
    problems : list of Problem
        What can't be taken along.
    """

    imports: list[Imported] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    future: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
