"""What can be said of a DAG before anything starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a DAG, or may be. ``line`` is the cell's, counted from 1."""

    level: str
    code: str
    message: str
    line: int | None
    hint: str
    dag_id: str | None = None
    task_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-able data."""
        return asdict(self)
