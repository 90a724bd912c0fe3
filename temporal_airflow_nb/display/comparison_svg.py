"""Render a comparison of two runs as SVG: final state and duration of each task.

``Comparison`` calls this in the process of the notebook or script. Positions and sizes are pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from temporal_airflow_nb.display import svg
from temporal_airflow_nb.display.merging import merge_order
from temporal_airflow_nb.display.model import Grid, Row, build_grid, format_duration
from temporal_airflow_nb.display.states import format_state, get_style
from temporal_airflow_nb.display.templates import Markup
from temporal_airflow_nb.display.text import format_counts, format_row_name, shorten_middle

_WIDTH = 900.0
_HEAD = 66.0
_ROW = 34.0
_BAR = 10.0
_NAME_CHARACTERS = 32
_TOOK = 78.0
_CHANGE = 150.0
_TICK = 90
_ROWS = 60


@dataclass(frozen=True)
class _Side:
    state: str
    seconds: float | None
    state_text: str


@dataclass(frozen=True)
class _Pair:
    name: str
    a: _Side | None
    b: _Side | None

    @property
    def difference(self) -> float:
        a, b = (side.seconds if side and side.seconds is not None else 0.0 for side in (self.a, self.b))
        return b - a


def render_comparison(
    a: Mapping[str, Any], b: Mapping[str, Any], *, rows: int = _ROWS, now: datetime | None = None
) -> str:
    """Return a picture of two runs.

    Parameters
    ----------
    a, b
        Snapshots of the runs.
    rows
        Maximum number of tasks. If there are more, those whose durations differ most are shown.
    now
        The time at which running tasks are measured; the present if None.

    Returns
    -------
    str
        A self-contained ``<svg>`` element.
    """
    grids = build_grid(a, now=now), build_grid(b, now=now)
    pairs = _pairs(*grids)
    shown = _most_different(pairs, rows)
    note = (
        ""
        if len(shown) == len(pairs)
        else f"{len(shown)} of {len(pairs)} tasks, those with the largest differences"
    )
    return _render(grids, shown, note)


def _pairs(a: Grid, b: Grid) -> list[_Pair]:
    sides = [{row.instances[0].task_id: row for row in run.rows} for run in (a, b)]
    return [
        _Pair(
            _name(sides[0].get(task_id), sides[1].get(task_id)),
            *(_side(run, side.get(task_id)) for run, side in zip((a, b), sides, strict=True)),
        )
        for task_id in merge_order(*sides)
    ]


def _name(a: Row | None, b: Row | None) -> str:
    row = a or b
    assert row is not None
    named = format_row_name(row)
    if a and b and a.mapped and b.mapped and len(a.instances) != len(b.instances):
        named = f"{row.name} [{len(a.instances)}, {len(b.instances)}]"
    return f"{row.group}.{named}" if row.group else named


def _side(run: Grid, row: Row | None) -> _Side | None:
    if row is None:
        return None
    state_text = format_counts(row.counts) if row.several else format_state(row.state)
    return _Side(row.state, run.seconds_of(row), state_text)


def _most_different(pairs: Sequence[_Pair], most: int) -> list[_Pair]:
    chosen = sorted(range(len(pairs)), key=lambda place: abs(pairs[place].difference), reverse=True)[:most]
    return [pairs[place] for place in sorted(chosen)]


def _render(grids: tuple[Grid, Grid], pairs: Sequence[_Pair], note: str) -> Markup:
    widest = max((len(pair.name) for pair in pairs), default=8)
    left = min(_NAME_CHARACTERS, widest) * svg.CHARACTER + 40
    longest = max((side.seconds or 0.0 for pair in pairs for side in (pair.a, pair.b) if side), default=0.0)
    scale = (_WIDTH - left - _TOOK - _CHANGE) / max(longest, 0.001)
    bottom = _HEAD + len(pairs) * _ROW
    heads = [
        _head(name, run, 14 + 17 * place) for place, (name, run) in enumerate(zip("ab", grids, strict=True))
    ]
    descriptions = [
        f"{name} {run.run_id}: {format_state(run.state)}" for name, run in zip("ab", grids, strict=True)
    ]
    return svg.picture(
        f"Two runs of {' and '.join(dict.fromkeys(run.dag_id for run in grids))} side by side",
        "; ".join(descriptions),
        *heads,
        *_axis(longest, left, scale, bottom),
        *(_pair(pair, _HEAD + place * _ROW, left, scale) for place, pair in enumerate(pairs)),
        svg.text(2.0, bottom + 15, note, fill_opacity=svg.QUIET, font_size=10),
        width=_WIDTH,
        height=bottom + (22 if note else 4),
    )


def _head(name: str, run: Grid, baseline: float) -> Markup:
    shown = get_style(run.state)
    text = f"{run.dag_id} · {run.run_id} · {format_state(run.state)} {format_duration(run.seconds)}"
    return svg.tag(
        "g",
        svg.text(2.0, baseline, name, font_weight=700),
        svg.text(18.0, baseline, shown.sign, fill=shown.color, font_weight=700),
        svg.text(34.0, baseline, text.strip()),
    )


def _axis(longest: float, left: float, scale: float, bottom: float) -> list[Markup]:
    parts = []
    for seconds, label in svg.ticks(longest, int(longest * scale / _TICK)):
        x = left + seconds * scale
        parts.append(
            svg.tag(
                "line", x1=x, x2=x, y1=_HEAD - 6, y2=bottom, stroke="currentColor", stroke_opacity=svg.FAINT
            )
        )
        parts.append(
            svg.text(x, _HEAD - 11, label, text_anchor="middle", fill_opacity=svg.QUIET, font_size=10)
        )
    return parts


def _pair(pair: _Pair, top: float, left: float, scale: float) -> Markup:
    room = int((left - 40) / svg.CHARACTER) + 1
    change = _change(pair)
    return svg.tag(
        "g",
        svg.tag(
            "title",
            " · ".join(part for part in (pair.name, *map(_describe, "ab", (pair.a, pair.b)), change) if part),
        ),
        svg.text(2.0, top + 19, shorten_middle(pair.name, room)),
        *_bar("a", pair.a, top + 4, left, scale),
        *_bar("b", pair.b, top + 5 + _BAR + 4, left, scale),
        svg.text(
            _WIDTH - 2, top + 19, change, text_anchor="end", font_weight=600 if _is_changed(pair) else None
        ),
    )


def _bar(name: str, side: _Side | None, top: float, left: float, scale: float) -> list[Markup]:
    baseline = top + _BAR - 1
    label = svg.text(left - 28, baseline, name, fill_opacity=svg.QUIET, font_size=10)
    if side is None:
        return [label]
    shown = get_style(side.state)
    parts = [label, svg.text(left - 16, baseline, shown.sign, fill=shown.color, font_weight=700)]
    right = left
    if side.seconds is not None:
        right += max(2.0, side.seconds * scale)
        parts.append(
            svg.tag(
                "rect",
                x=left,
                y=top,
                width=right - left,
                height=_BAR,
                rx=2.0,
                fill=shown.color,
                fill_opacity=0.55 if name == "a" else None,
            )
        )
    label_text = (
        format_duration(side.seconds)
        if side.state == "success"
        else f"{format_duration(side.seconds)} {side.state_text}".strip()
    )
    return [*parts, svg.text(right + 6, baseline, label_text, fill_opacity=svg.QUIET, font_size=10)]


def _is_changed(pair: _Pair) -> bool:
    return pair.a is None or pair.b is None or pair.a.state_text != pair.b.state_text


def _describe(name: str, side: _Side | None) -> str:
    return f"{name}: {side.state_text} {format_duration(side.seconds)}".strip() if side else ""


def _change(pair: _Pair) -> str:
    """Return the difference in a few words."""
    if pair.a is None:
        return "only in b"
    if pair.b is None:
        return "only in a"
    if pair.a.seconds is None or pair.b.seconds is None:
        return ""
    sign = "+" if pair.difference >= 0 else "−"
    change = f"{sign}{format_duration(abs(pair.difference))}"
    return f"{change}  ×{pair.b.seconds / pair.a.seconds:.2f}" if pair.a.seconds > 0 else change
