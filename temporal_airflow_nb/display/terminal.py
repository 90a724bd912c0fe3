"""Render a run for a terminal, with `rich`."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from temporal_airflow_nb.display.model import Grid, Row, format_duration
from temporal_airflow_nb.display.states import format_state, get_style
from temporal_airflow_nb.display.text import GAP, fit_columns, format_row_name, format_try, shorten_middle

_BAR = 24
_WIDE = 104
_JUSTIFY: tuple[JustifyMethod, ...] = ("left", "left", "left", "right")


def render_run(grid: Grid, *, width: int, height: int | None = None) -> RenderableType:
    """Return a run as a rich renderable.

    Parameters
    ----------
    grid
        The run.
    width, height
        Size of the terminal in characters. Without a height every task gets a line.
    """
    short = grid if height is None else grid.shortened(max(4, height - 4))
    parts: list[RenderableType] = [_head(grid, width), _table(short, width)]
    if grid.note:
        parts.append(Text(grid.note, style="yellow"))
    return Group(*parts)


def _styled(state: str, text: str) -> Text:
    return Text(
        text,
        style=f"bold {get_style(state).color}" if state in ("failed", "running") else get_style(state).color,
    )


def _tally(counts: Mapping[str, int]) -> Text:
    return Text(", ").join(_styled(state, f"{n} {format_state(state)}") for state, n in counts.items())


def _head(grid: Grid, width: int) -> RenderableType:
    first = Text.assemble(
        _styled(grid.state, f"{get_style(grid.state).sign} {format_state(grid.state)}"),
        "  ",
        (grid.dag_id, "bold"),
        "  ",
        (shorten_middle(grid.run_id, max(16, width - len(grid.dag_id) - 28)), "dim"),
        "  ",
        format_duration(grid.seconds),
    )
    first.truncate(width, overflow="ellipsis")
    second = _tally(grid.counts)
    second.truncate(width, overflow="ellipsis")
    return Group(first, second)


def _table(grid: Grid, width: int) -> Table:
    wide = width >= _WIDE
    cells = [_cells(grid, depth, line) for depth, line in grid.lines()]
    table = Table.grid(padding=(0, GAP, 0, 0))
    if not cells:
        return table
    sizes = fit_columns(
        [[cell.plain for cell in row] for row in cells], width - (_BAR + 2 * GAP if wide else GAP)
    )
    for size, justify in zip(sizes, _JUSTIFY, strict=True):
        table.add_column(no_wrap=True, overflow="ellipsis", width=size, justify=justify)
    table.add_column(no_wrap=True)
    for (name, *others), (_, line) in zip(cells, grid.lines(), strict=True):
        bar = _bar(grid, line) if wide and isinstance(line, Row) else ""
        table.add_row(_clipped(name, sizes[0]), *others, bar)
    return table


def _clipped(name: Text, width: int) -> Text:
    """Return a name without its middle; its sign keeps the style."""
    shown = Text(shorten_middle(name.plain, width), style=name.style)
    for span in name.spans:
        shown.stylize(span.style, span.start, span.end)
    return shown


def _cells(grid: Grid, depth: int, line: str | Row) -> list[Text]:
    indent = "  " * depth
    if isinstance(line, str):
        return [Text(f"  {indent}{line}", style="bold dim"), Text(), Text(), Text()]
    return [
        Text.assemble(_styled(line.state, get_style(line.state).sign), f" {indent}{format_row_name(line)}"),
        _tally(line.counts) if line.several else _styled(line.state, format_state(line.state)),
        Text(format_try(line), style="dim"),
        Text(format_duration(grid.seconds_of(line))),
    ]


def _bar(grid: Grid, row: Row) -> Text:
    span = grid.span(row)
    if span is None:
        return Text("")
    queued, begin, end = (round(fraction * _BAR) for fraction in span)
    begin = min(begin, _BAR - 1)
    queued = min(queued, begin)
    end = max(end, begin + 1)
    return Text.assemble(
        " " * queued,
        ("─" * (begin - queued), "dim"),
        ("━" * (end - begin), get_style(row.state).color),
        " " * (_BAR - end),
    )
