"""Render a run as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from temporal_airflow_nb.display.failures import format_failure, list_failures
from temporal_airflow_nb.display.model import Grid, Row, format_duration, shorten
from temporal_airflow_nb.display.states import format_state, get_style
from temporal_airflow_nb.printable_text import make_printable

ROWS = 60
GAP = 2


def render_text(grid: Grid, *, width: int = 100, rows: int = ROWS) -> str:
    """Return a run as text of at most ``width`` columns and about ``rows`` lines."""
    short = grid.shortened(rows)
    table = [_cells(short, depth, line) for depth, line in short.lines()]
    lines = [format_headline(grid)]
    if table:
        sizes = fit_columns(table, width)
        lines += [_line(row, sizes) for row in table]
    for failed in list_failures(grid):
        lines += format_failure(failed)
    lines += [f"{name}: {url}" for name, url in grid.links.items()]
    if grid.note:
        lines.append(grid.note)
    return make_printable("\n".join(lines))


def format_headline(grid: Grid) -> str:
    """Return a run in one line: ``✓ etl · manual__2026-01-01 · success · 1.50 s``."""
    parts = (grid.dag_id, grid.run_id, format_state(grid.state), format_duration(grid.seconds))
    return f"{get_style(grid.state).sign} " + " · ".join(part for part in parts if part)


def format_counts(counts: Mapping[str, int]) -> str:
    """Return counts as text.

    >>> format_counts({"running": 13, "success": 37})
    '13 running, 37 success'
    """
    return ", ".join(f"{n} {format_state(state)}" for state, n in counts.items())


def format_row_name(row: Row) -> str:
    """Return the name of a row, with the number of instances if its task is mapped."""
    return f"{row.name} [{len(row.instances)}]" if row.mapped else row.name


def shorten_middle(text: str, width: int) -> str:
    """Shorten a text to ``width`` columns by removing its middle: both ends of a task id matter."""
    if len(text) <= width:
        return text
    head = max(1, width // 2)
    return f"{text[:head]}…{text[len(text) - (width - head - 1) :]}" if width > 2 else text[:width]


def fit_columns(table: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the widths of name, state, tries and duration. Name and state share the remaining space."""
    name, state, tries, took = (max(len(row[column]) for row in table) for column in range(4))
    spare = max(20, width - tries - took - 3 * GAP)
    if name + state > spare:
        name = min(name, max(spare - state, spare // 2))
        state = min(state, spare - name)
    return [name, state, tries, took]


def format_try(row: Row) -> str:
    """Return the try of a row, or nothing for a first try without a failure."""
    if row.latest.try_number > 1 or row.state in ("failed", "up_for_retry"):
        return f"try {row.tries}" if " of " in row.tries else ""
    return ""


def _cells(grid: Grid, depth: int, line: str | Row) -> tuple[str, str, str, str]:
    indent = "  " * depth
    if isinstance(line, str):
        return f"  {indent}{line}", "", "", ""
    state = format_counts(line.counts) if line.several else format_state(line.state)
    return (
        f"{get_style(line.state).sign} {indent}{format_row_name(line)}",
        state,
        format_try(line),
        format_duration(grid.seconds_of(line)),
    )


def _line(row: Sequence[str], sizes: Sequence[int]) -> str:
    name, state, tried, took = sizes
    cells = (
        f"{shorten_middle(row[0], name):<{name}}",
        f"{shorten(row[1], state):<{state}}",
        f"{row[2]:<{tried}}",
        f"{row[3]:>{took}}",
    )
    return (" " * GAP).join(cells).rstrip()
