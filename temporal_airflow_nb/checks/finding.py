"""The findings of the checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from temporal_airflow_nb.messages.files import FindingRow


@dataclass(frozen=True)
class Finding:
    """An error or a possible error in a DAG.

    Attributes
    ----------
    level : str
        ``"error"`` if the DAG can't run as it is, or ``"warning"``.
    code : str
        The kind of finding, such as ``"naive-datetime"``.
    message, hint : str
        The problem, and what to do.
    line : int or None
        The cell's line, counted from 1.
    dag_id, task_id : str or None
        The DAG and the task concerned, if known.
    """

    level: Literal["error", "warning"]
    code: str
    message: str
    line: int | None
    hint: str
    dag_id: str | None = None
    task_id: str | None = None

    def to_dict(self) -> FindingRow:
        """Return the finding as data for JSON."""
        return {
            "level": self.level,
            "code": self.code,
            "message": self.message,
            "line": self.line,
            "hint": self.hint,
            "dag_id": self.dag_id,
            "task_id": self.task_id,
        }
