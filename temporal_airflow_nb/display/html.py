"""The grid as static HTML."""

from __future__ import annotations

import json
from functools import lru_cache

from temporal_airflow_nb.display.model import Grid, Instance, Row, duration
from temporal_airflow_nb.display.states import LOOKS, NO_STATUS, by_progress, look, words
from temporal_airflow_nb.display.templates import Markup, fill, joined, style
from temporal_airflow_nb.display.text import tally

ROWS = 100
SQUARES = 120
FAILURES = 5


def render(grid: Grid, *, rows: int = ROWS) -> str:
    """Return the grid as HTML that stands alone: no script, nothing fetched, about ``rows`` lines."""
    return fill(
        "run",
        css=_css(),
        dag_id=grid.dag_id,
        run_id=grid.run_id,
        kind=_kind(grid.state),
        sign=look(grid.state).sign,
        state=words(grid.state),
        took=duration(grid.seconds),
        links=joined(
            fill("link", name=name.capitalize(), url=url)
            for name, url in grid.links.items()
            if url.startswith(("http://", "https://", "/"))
        ),
        overview=_overview(grid),
        note=fill("note", text=grid.note) if grid.note else "",
        table=_table(grid.shortened(rows)),
        failures=_failures(grid),
    )


def card(title: str, text: str, *, state: str = "running") -> str:
    """Return a line in the grid's frame, for what happens before there is a run."""
    return fill("card", css=_css(), kind=_kind(state), sign=look(state).sign, title=title, text=text)


@lru_cache(maxsize=1)
def _css() -> Markup:
    return style(fill("color", kind=state, color=shown.color) for state, shown in LOOKS.items())


def _kind(state: str) -> str:
    return state if state in LOOKS else NO_STATUS


def _overview(grid: Grid) -> Markup | str:
    counts = grid.counts
    if not counts:
        return ""
    return fill("overview", label=tally(counts), shares=_shares(counts), legend=_legend(counts))


def _shares(counts: dict[str, int]) -> Markup:
    return joined(fill("share", kind=_kind(state), count=n) for state, n in by_progress(counts).items())


def _legend(counts: dict[str, int]) -> Markup:
    return joined(
        fill("count", kind=_kind(state), sign=look(state).sign, count=n, state=words(state))
        for state, n in counts.items()
    )


def _table(grid: Grid) -> Markup | str:
    if not grid.rows:
        return ""
    return fill(
        "table",
        dag_id=grid.dag_id,
        run_id=grid.run_id,
        rows=joined(
            fill("group", name=line, indent=_indent(depth))
            if isinstance(line, str)
            else _row(grid, line, depth)
            for depth, line in grid.lines()
        ),
    )


def _indent(depth: int) -> str:
    return f"{depth * 16}px"


def _row(grid: Grid, row: Row, depth: int) -> Markup:
    shown = {
        "indent": _indent(depth),
        "name": row.name,
        "state": _several(row) if row.several else _one(row),
        "took": duration(grid.seconds_of(row)),
        "bar": _bar(grid, row),
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


def _one(row: Row) -> Markup:
    return fill("count", kind=_kind(row.state), sign=look(row.state).sign, count="", state=words(row.state))


def _several(row: Row) -> Markup:
    label = tally(row.counts)
    if len(row.instances) > SQUARES:
        picture = fill("shares", label=label, shares=_shares(row.counts))
    else:
        picture = fill("squares", label=label, squares=joined(map(_square, row.instances)))
    return fill("several", legend=_legend(row.counts), picture=picture)


def _square(instance: Instance) -> Markup:
    parts = [instance.name, instance.label, words(instance.state), duration(instance.seconds)]
    if instance.try_number > 1:
        parts.append(f"try {instance.try_number}")
    title = " · ".join(part for part in parts if part)
    return fill("square", kind=_kind(instance.state), sign=look(instance.state).sign, title=title)


def _bar(grid: Grid, row: Row) -> Markup | str:
    span = grid.span(row)
    if span is None:
        return ""
    queued, begin, end = (round(fraction * 100, 2) for fraction in span)
    return fill(
        "bar",
        kind=_kind(row.state),
        queued=queued,
        waited=round(begin - queued, 2),
        begin=min(begin, 99.5),
        ran=round(end - begin, 2),
        label=_when(grid, row),
    )


def _when(grid: Grid, row: Row) -> str:
    begin, end = row.start, row.ended(grid.now)
    if not (begin and end and grid.start):
        return ""
    after = duration((begin - grid.start).total_seconds())
    return f"began {after} into the run, took {duration((end - begin).total_seconds())}"


def _failures(grid: Grid) -> Markup | str:
    failed = grid.failures
    if not failed:
        return ""
    shown = [_failure(instance) for instance in failed[:FAILURES]]
    if len(failed) > FAILURES:
        shown.append(fill("more", text=f"… and {len(failed) - FAILURES} more"))
    return fill("failures", failures=joined(shown))


def _failure(instance: Instance) -> Markup:
    after = f" at try {instance.try_number} of {instance.max_tries + 1}" if instance.max_tries else ""
    if instance.seconds is not None:
        after += f", after {duration(instance.seconds)}"
    mapped = f", map_index={instance.map_index}" if instance.map_index >= 0 else ""
    call = f"run.logs({json.dumps(instance.task_id)}{mapped})"
    return fill("failure", name=instance.name, after=after, call=call)
