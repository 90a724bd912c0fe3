"""What is found out about a DAG before it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a DAG, or may be.

    Attributes
    ----------
    level : str
        ``"error"``: it can't be run as it is; or ``"warning"``.
    code : str
        What kind of thing it is, as ``"naive-datetime"``.
    message, hint : str
        What is wrong, and what to do.
    line : int or None
        The cell's line, counted from 1.
    dag_id, task_id : str or None
        What it is about, where that is known.
    """

    level: Literal["error", "warning"]
    code: str
    message: str
    line: int | None
    hint: str
    dag_id: str | None = None
    task_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-able data."""
        return asdict(self)
