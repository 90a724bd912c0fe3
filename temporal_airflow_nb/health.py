"""What the ``doctor`` commands find, and tables as the commands print them."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from temporal_airflow_nb.errors import TemporalAirflowError


@dataclass(frozen=True)
class HealthCheck:
    """One line of the report. ``state`` is ``"ok"`` or ``"problem"``."""

    check: str
    state: str
    detail: str
    next_step: str = ""
    exit_code: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the line as JSON-able data."""
        data = asdict(self)
        del data["exit_code"]
        return data


def run_checks(checks: Mapping[str, Callable[[], str]]) -> list[HealthCheck]:
    """Run checks, each of which returns what it has found or raises a :class:`TemporalAirflowError`."""
    return [_run_check(name, check) for name, check in checks.items()]


def _run_check(name: str, check: Callable[[], str]) -> HealthCheck:
    try:
        return HealthCheck(name, "ok", check())
    except TemporalAirflowError as error:
        return HealthCheck(name, "problem", error.message, error.hint, error.exit_code)
    except importlib.metadata.PackageNotFoundError:
        return HealthCheck(name, "problem", f"{name} is not installed.", f"Install it: pip install {name}", 2)


def print_report(checks: Sequence[HealthCheck], output: str) -> int:
    """Print checks as ``json`` or as a table; return the exit code of the worst."""
    if output == "json":
        print(json.dumps({"checks": [check.to_dict() for check in checks]}, indent=2))
    else:
        print_table(
            ("check", "state", "detail"),
            [(f.check, f.state, f"{f.detail}\n{f.next_step}".strip()) for f in checks],
        )
    return max(check.exit_code for check in checks)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print cells in columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)
