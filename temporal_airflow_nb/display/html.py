"""Render a run as static HTML.

The HTML has inline styles and inline SVG only. A front end that removes these still shows a table with all texts. The
kernel renders it for the live grid and for the representations of a run; all texts are escaped by ``templates.fill``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby

from temporal_airflow_nb.display.failure_html import render_first_failures
from temporal_airflow_nb.display.failures import list_failures
from temporal_airflow_nb.display.model import Grid, Instance, Row, format_duration
from temporal_airflow_nb.display.states import (
    NO_STATUS,
    STATE_STYLES,
    format_state,
    get_style,
    sort_by_progress,
)
from temporal_airflow_nb.display.templates import Markup, fill, join
from temporal_airflow_nb.display.text import format_counts

ROWS = 100
SQUARES = 120

_WIDTH = 1000
_THINNEST = 4
_WAITED = "#8b949e"


def render(grid: Grid, *, rows: int = ROWS, key: str = "") -> str:
    """Return a run as self-contained HTML: no scripts, style sheets or other files.

    Parameters
    ----------
    grid
        The run.
    rows
        The approximate maximum number of lines. Neighbours in the same state are merged to stay below it.
    key
        Identifies the place of the live widget in the document.
    """
    shown = list_failures(grid)
    return fill(
        "run",
        key=key,
        dag_id=grid.dag_id,
        run_id=grid.run_id,
        state=format_state(grid.state),
        state_chip=_pill(grid.state, format_state(grid.state)),
        times=_times(grid),
        links=join(
            fill("link", name=name.capitalize(), url=url)
            for name, url in grid.links.items()
            if url.startswith(("http://", "https://", "/"))
        ),
        overview=_overview(grid),
        note=fill("note", text=grid.note) if grid.note else "",
        failures=render_first_failures(shown, len(grid.failures)),
        table=_table(grid.shortened(rows)),
    )


def render_card(title: str, text: str, *, state: str = "running") -> str:
    """Return a line in the frame of a grid, for progress until a run exists."""
    return fill("card", title=title, state_chip=_pill(state, title), text=text)


def _kind(state: str) -> str:
    return state if state in STATE_STYLES else NO_STATUS


def _pill(state: str, text: str) -> Markup:
    return fill(
        "pill", kind=_kind(state), color=get_style(state).color, sign=get_style(state).sign, state=text
    )


def _chip(state: str, text: str) -> Markup:
    return fill(
        "chip", kind=_kind(state), color=get_style(state).color, sign=get_style(state).sign, text=text
    )


def _times(grid: Grid) -> Markup:
    parts = [
        Markup(f"{word} " + fill("time", iso=when.isoformat(), text=_utc(when)))
        for word, when in (("started", grid.start), ("ended", grid.end))
        if when is not None
    ]
    if grid.seconds is not None:
        took = f"{'took' if grid.end else 'running for'} {format_duration(grid.seconds)}"
        parts.append(fill("text", text=took))
    return Markup(" · ".join(parts))


def _utc(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def _overview(grid: Grid) -> Markup | str:
    counts = grid.counts
    if not counts:
        return ""
    return fill("overview", label=format_counts(counts), legend=_legend(counts), shares=_shares(counts))


def _legend(counts: dict[str, int]) -> Markup:
    return join(_chip(state, f"{n} {format_state(state)}") for state, n in counts.items())


def _shares(counts: dict[str, int]) -> Markup:
    total = sum(counts.values())
    parts, done = [], 0
    for state, n in sort_by_progress(counts).items():
        parts.append(_rect(done / total, (done + n) / total, get_style(state).color, y=0, height=6))
        done += n
    return join(parts)


def _table(grid: Grid) -> Markup | str:
    if not grid.rows:
        return ""
    return fill(
        "table",
        dag_id=grid.dag_id,
        run_id=grid.run_id,
        span=f", 0 to {format_duration(grid.seconds)}" if grid.seconds else "",
        rows=join(
            fill("group", name=line, indent=_indent(depth))
            if isinstance(line, str)
            else _row(grid, line, depth)
            for depth, line in grid.lines()
        ),
    )


def _indent(depth: int) -> str:
    return "\u00a0" * 4 * depth


def _row(grid: Grid, row: Row, depth: int) -> Markup:
    shown = {
        "indent": _indent(depth),
        "name": row.name,
        "state": _several(row) if row.several else _chip(row.state, format_state(row.state)),
        "took": format_duration(grid.seconds_of(row)),
        "when": _when(grid, row),
        "bar": _timeline(grid, row),
    }
    if row.folded:
        return fill("folded", **shown)
    return fill(
        "row",
        task_id=row.instances[0].task_id,
        operator="@task" if row.operator == "_PythonDecoratedOperator" else row.operator.lstrip("_"),
        size=fill("size", count=len(row.instances)) if row.mapped else "",
        tries=row.tries,
        **shown,
    )


def _several(row: Row) -> Markup:
    legend = _legend(row.counts)
    if len(row.instances) > SQUARES:
        return legend
    return join([legend, fill("squares", squares=Markup("".join(_squares(row.instances))))])


def _squares(instances: tuple[Instance, ...]) -> Iterator[Markup]:
    """Yield a sign for each instance; neighbours in the same state share an element."""
    for state, members in groupby(instances, key=lambda instance: instance.state):
        together = list(members)
        names = together[0].name if len(together) == 1 else f"{together[0].name} to {together[-1].name}"
        yield fill(
            "square",
            kind=_kind(state),
            color=get_style(state).color,
            title=f"{names} · {format_state(state)}",
            signs=get_style(state).sign * len(together),
        )


def _timeline(grid: Grid, row: Row) -> Markup | str:
    span = grid.span(row)
    if span is None:
        return ""
    queued, begin, end = span
    bars = [_rect(queued, begin, _WAITED, y=6, height=2)] if begin > queued else []
    if row.several:
        bars.append(_rect(begin, end, get_style(row.state).color))
    else:
        instance = row.instances[0]
        bars += [
            _rect(
                grid.fraction(tried.start),
                grid.fraction(tried.end),
                get_style(tried.state).color,
                opacity=0.45,
            )
            for tried in instance.former
            if tried.start and tried.end
        ]
        bars.append(_rect(begin, end, get_style(row.state).color))
    return fill("timeline", label=_when(grid, row), bars=join(bars))


def _rect(
    begin: float, end: float, color: str, *, y: int = 2, height: int = 10, opacity: float = 1.0
) -> Markup:
    width = max(_THINNEST, round((end - begin) * _WIDTH))
    x = min(round(begin * _WIDTH), _WIDTH - _THINNEST)
    return fill("rect", x=x, y=y, width=width, height=height, color=color, opacity=opacity)


def _when(grid: Grid, row: Row) -> str:
    begin, end = row.start, row.ended(grid.now)
    if not (begin and end and grid.start):
        return ""
    after = format_duration((begin - grid.start).total_seconds())
    return f"began {after} into the run, took {format_duration((end - begin).total_seconds())}"
