"""Find dates of DAGs and tasks without a time zone or in the future."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from temporal_airflow_nb.checks.finding import Finding
from temporal_airflow_nb.checks.syntax import dotted, imported_as, literal, text_of

_DATES = frozenset({"start_date", "end_date", "logical_date"})


def check(tree: ast.Module) -> Iterator[Finding]:
    """Find dates of DAGs and tasks that Airflow may understand differently than intended."""
    standard_names = imported_as(tree, "datetime", "datetime")
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "datetime"
    }
    for name, call in _find_dates(tree):
        names = dotted(call.func)
        is_naive = (len(names) == 1 and names[0] in standard_names) or (
            len(names) == 2 and names[0] in modules and names[1] == "datetime"
        )
        if is_naive and len(call.args) < 8 and all(k.arg not in ("tzinfo", None) for k in call.keywords):
            yield _naive_date(name, call)
        date = _evaluate(call)
        if (
            name == "start_date"
            and date is not None
            and date > datetime.now(timezone.utc) + timedelta(days=1)
        ):
            yield Finding(
                "warning",
                "future-start-date",
                f"`start_date` {date.date()} is in the future. A run with an earlier logical date has no tasks.",
                call.lineno,
                "Use a date in the past.",
            )


def _find_dates(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        pairs: list[tuple[str | None, ast.expr]] = []
        if isinstance(node, ast.Call):
            pairs = [(argument.arg, argument.value) for argument in node.keywords]
        elif isinstance(node, ast.Dict):
            pairs = [(text_of(key), v) for key, v in zip(node.keys, node.values, strict=True) if key]
        for name, value in pairs:
            if name in _DATES and isinstance(value, ast.Call) and dotted(value.func)[-1:] == ["datetime"]:
                yield str(name), value


def _naive_date(name: str, call: ast.Call) -> Finding:
    arguments = ", ".join(ast.unparse(part) for part in [*call.args, *call.keywords])
    return Finding(
        "warning",
        "naive-datetime",
        f"`{name}` has no time zone, so Airflow uses its default time zone.",
        call.lineno,
        f'Add a time zone: `pendulum.datetime({arguments}, tz="UTC")`.',
    )


def _evaluate(call: ast.Call) -> datetime | None:
    numbers = [literal(argument) for argument in call.args]
    for name in ("year", "month", "day")[len(numbers) :]:
        numbers += [literal(k.value) for k in call.keywords if k.arg == name]
    if len(numbers) < 3 or not all(type(number) is int for number in numbers[:3]):
        return None
    try:
        return datetime(numbers[0], numbers[1], numbers[2], tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        return None
