"""The report of the ``doctor`` commands, and the tables that all commands print."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from temporal_airflow_nb.errors import TemporalAirflowError
from temporal_airflow_nb.printable_text import make_printable


@dataclass(frozen=True)
class HealthCheck:
    """The result of one check, a line of the report. ``state`` is ``"ok"`` or ``"problem"``."""

    check: str
    state: str
    detail: str
    next_step: str = ""
    exit_code: int = 0

    def to_dict(self) -> dict[str, str]:
        """Return the result as JSON-able data."""
        return {
            "check": self.check,
            "state": self.state,
            "detail": self.detail,
            "next_step": self.next_step,
        }


def run_checks(checks: Mapping[str, Callable[[], str]]) -> list[HealthCheck]:
    """Run checks by name. Each returns its detail, or raises a :class:`TemporalAirflowError` for a problem."""
    return [_run_check(name, check) for name, check in checks.items()]


def _run_check(name: str, check: Callable[[], str]) -> HealthCheck:
    try:
        return HealthCheck(name, "ok", check())
    except TemporalAirflowError as error:
        return HealthCheck(name, "problem", error.message, error.hint, error.exit_code)
    # Any other exception is a fault of this package: it ends the command with a traceback.
    except importlib.metadata.PackageNotFoundError:
        return HealthCheck(name, "problem", f"{name} is not installed.", f"Install it: pip install {name}", 2)


def print_report(checks: Sequence[HealthCheck], output: str) -> int:
    """Print the results as ``json`` or as a table; return the highest exit code."""
    if output == "json":
        print(json.dumps({"checks": [check.to_dict() for check in checks]}, indent=2))
    else:
        print_table(
            ("check", "state", "detail"),
            [(c.check, c.state, f"{c.detail}\n{c.next_step}".strip()) for c in checks],
        )
    return max(check.exit_code for check in checks)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(make_printable(cell)) for cell in row))
    Console(highlight=False).print(table)
