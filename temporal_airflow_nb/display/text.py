"""The grid as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from temporal_airflow_nb.display.failures import failures
from temporal_airflow_nb.display.failures import lines as failure_lines
from temporal_airflow_nb.display.model import Grid, Row, cut, duration
from temporal_airflow_nb.display.states import format_state, get_style

ROWS = 60
GAP = 2


def plain(grid: Grid, *, width: int = 100, rows: int = ROWS) -> str:
    """Return the grid as text of at most ``width`` columns and about ``rows`` lines."""
    short = grid.shortened(rows)
    table = [_cells(short, depth, line) for depth, line in short.lines()]
    lines = [headline(grid)]
    if table:
        sizes = columns(table, width)
        lines += [_line(row, sizes) for row in table]
    for failed in failures(grid):
        lines += failure_lines(failed)
    lines += [f"{name}: {url}" for name, url in grid.links.items()]
    if grid.note:
        lines.append(grid.note)
    return "\n".join(lines)


def headline(grid: Grid) -> str:
    """Return the run in a line: ``✓ etl · manual__2026-01-01 · success · 1.50 s``."""
    parts = (grid.dag_id, grid.run_id, format_state(grid.state), duration(grid.seconds))
    return f"{get_style(grid.state).sign} " + " · ".join(part for part in parts if part)


def tally(counts: Mapping[str, int]) -> str:
    """Return counts for people.

    >>> tally({"running": 13, "success": 37})
    '13 running, 37 success'
    """
    return ", ".join(f"{n} {format_state(state)}" for state, n in counts.items())


def title(row: Row) -> str:
    """Return a row's name, with the number of instances of a mapped task."""
    return f"{row.name} [{len(row.instances)}]" if row.mapped else row.name


def clip(text: str, width: int) -> str:
    """Return ``text`` in ``width`` columns, its middle left out if need be: both ends of a task id matter."""
    if len(text) <= width:
        return text
    head = max(1, width // 2)
    return f"{text[:head]}…{text[len(text) - (width - head - 1) :]}" if width > 2 else text[:width]


def columns(table: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the widths of name, state, tries and duration; name and state share what the other two leave."""
    name, state, tries, took = (max(len(row[column]) for row in table) for column in range(4))
    spare = max(20, width - tries - took - 3 * GAP)
    if name + state > spare:
        name = min(name, max(spare - state, spare // 2))
        state = min(state, spare - name)
    return [name, state, tries, took]


def tries(row: Row) -> str:
    """Return which try a row is at, where that isn't the first one going well."""
    if row.latest.try_number > 1 or row.state in ("failed", "up_for_retry"):
        return f"try {row.tries}" if " of " in row.tries else ""
    return ""


def _cells(grid: Grid, depth: int, line: str | Row) -> tuple[str, str, str, str]:
    indent = "  " * depth
    if isinstance(line, str):
        return f"  {indent}{line}", "", "", ""
    state = tally(line.counts) if line.several else format_state(line.state)
    return (
        f"{get_style(line.state).sign} {indent}{title(line)}",
        state,
        tries(line),
        duration(grid.seconds_of(line)),
    )


def _line(row: Sequence[str], sizes: Sequence[int]) -> str:
    name, state, tried, took = sizes
    cells = (
        f"{clip(row[0], name):<{name}}",
        f"{cut(row[1], state):<{state}}",
        f"{row[2]:<{tried}}",
        f"{row[3]:>{took}}",
    )
    return (" " * GAP).join(cells).rstrip()
