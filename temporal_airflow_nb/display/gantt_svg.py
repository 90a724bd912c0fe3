"""Render the Gantt chart of a run as SVG: when each try was queued and when it ran.

``Run.plot`` calls this in the process of the notebook or script. Positions and sizes are pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from temporal_airflow_nb.display import svg
from temporal_airflow_nb.display.model import Grid, Instance, Row, build_grid, format_duration, parse_time
from temporal_airflow_nb.display.states import format_state, get_style, sort_by_progress
from temporal_airflow_nb.display.templates import Markup
from temporal_airflow_nb.display.text import format_counts, shorten_middle

_ROW = 20.0
_BAR = 12.0
_LEAST = 3.0
_TOP = 26.0
_FOOT = 22.0
_TOOK = 76.0
_INDENT = 12.0
_TICK = 90
_NAME_CHARACTERS = 34
# A mapped task with more instances than this is one row.
_MAX_EXPANDED = 8
_RUNNING = frozenset({"running", "restarting"})

Key = tuple[str, int]


@dataclass(frozen=True)
class _Try:
    number: int
    state: str
    queued: datetime | None
    start: datetime
    end: datetime
    former: bool


@dataclass(frozen=True)
class _Lane:
    name: str
    depth: int
    state: str
    took: str
    tries: Sequence[_Try]
    summary: bool = False


def render_gantt(
    snapshot: Mapping[str, Any], *, width: int = 900, max_rows: int = 100, now: datetime | None = None
) -> str:
    """Return the Gantt chart of a run.

    Parameters
    ----------
    snapshot
        A snapshot of the run. Its tasks may have ``tries``, a list of the former ones, each
        ``[try_number, state, queued, start, end]``.
    width
        Width of the picture in pixels.
    max_rows
        Maximum number of rows. If there are more, neighbours are merged.
    now
        The time at which running tasks are measured; the present if None.

    Returns
    -------
    str
        A self-contained ``<svg>`` element: no scripts, style sheets or other files.

    Examples
    --------
    >>> run = {"dag_id": "etl", "run_id": "manual", "state": "queued", "tasks": []}
    >>> render_gantt(run).startswith("<svg")
    True
    """
    shown = build_grid(snapshot, now=now)
    former = {
        (task["task_id"], task.get("map_index", -1)): tuple(_former(task.get("tries") or ()))
        for task in snapshot.get("tasks", ())
    }
    lanes = list(_lanes(shown, former, expanded=True))
    if len(lanes) > max_rows:
        lanes = list(_lanes(shown.shortened(max_rows), former, expanded=False))
    begin, end = _extent(shown, lanes)
    return _Chart(begin, max((end - begin).total_seconds(), 0.001), width).render(shown, lanes)


def _former(tries: Iterable[Sequence[Any]]) -> Iterator[_Try]:
    for number, state, queued, start, end in tries:
        begun, ended = parse_time(start), parse_time(end)
        if begun and ended:
            yield _Try(number, state or "failed", parse_time(queued), begun, ended, former=True)


def _lanes(shown: Grid, former: Mapping[Key, Sequence[_Try]], *, expanded: bool) -> Iterator[_Lane]:
    for depth, line in shown.lines():
        if isinstance(line, str):
            yield _Lane(line, depth, "", "", ())
            continue
        tries = [list(_tries(instance, former, shown.now)) for instance in line.instances]
        several = line.several and (line.folded or not expanded or len(line.instances) > _MAX_EXPANDED)
        if several or not line.mapped:
            yield _Lane(
                _row_name(line),
                depth,
                line.state,
                format_duration(shown.seconds_of(line)),
                [tried for each in tries for tried in each],
                summary=several,
            )
            continue
        for instance, each in zip(line.instances, tries, strict=True):
            yield _Lane(_instance_name(line, instance), depth, instance.state, _took(instance, each), each)


def _row_name(row: Row) -> str:
    return f"{row.name} [{len(row.instances)}]" if row.mapped else row.name


def _instance_name(row: Row, instance: Instance) -> str:
    if instance.map_index < 0:
        return row.name
    return f"{row.name} [{instance.label or instance.map_index}]"


def _took(instance: Instance, tries: Sequence[_Try]) -> str:
    latest = [tried for tried in tries if not tried.former]
    if instance.seconds is not None or not latest:
        return format_duration(instance.seconds)
    return format_duration((latest[0].end - latest[0].start).total_seconds())


def _tries(instance: Instance, former: Mapping[Key, Sequence[_Try]], now: datetime) -> Iterator[_Try]:
    recorded = former.get((instance.task_id, instance.map_index), ())
    yield from recorded
    if instance.start is not None:
        # Until the next try begins, a task instance has the times of the former try, which is recorded already.
        if all(instance.start != tried.start for tried in recorded):
            end = max(instance.end or now, instance.start)
            yield _Try(
                instance.try_number, instance.state, instance.queued, instance.start, end, former=False
            )
    elif instance.queued is not None and instance.state == "queued":
        yield _Try(instance.try_number, instance.state, instance.queued, now, now, former=False)


def _extent(shown: Grid, lanes: Sequence[_Lane]) -> tuple[datetime, datetime]:
    tries = [tried for lane in lanes for tried in lane.tries]
    begins = [min(tried.queued or tried.start, tried.start) for tried in tries]
    begin = min([*begins, *([shown.start] if shown.start else [])], default=shown.now)
    ends = [tried.end for tried in tries]
    if shown.start:
        ends.append(shown.end or shown.now)
    return begin, max(ends, default=begin)


class _Chart:
    """A true time axis, and what stands on it."""

    def __init__(self, begin: datetime, seconds: float, width: int) -> None:
        self._begin = begin
        self._seconds = seconds
        self._width = float(width)
        self._left = 0.0
        self._scale = 1.0

    def render(self, shown: Grid, lanes: Sequence[_Lane]) -> Markup:
        widest = max((len(lane.name) + 2 + 2 * lane.depth for lane in lanes), default=8)
        self._left = min(_NAME_CHARACTERS, widest) * svg.CHARACTER + 16
        self._scale = max(50.0, self._width - self._left - _TOOK) / self._seconds
        bottom = _TOP + len(lanes) * _ROW
        run = f"{shown.dag_id}, run {shown.run_id}: {format_state(shown.state)}"
        counted = format_counts(shown.counts) or "no tasks"
        took = f", {format_duration(shown.seconds)}" if shown.seconds is not None else ""
        foot = f"0 s is {self._begin.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
        return svg.picture(
            f"Gantt chart of {run}",
            f"{counted}{took}",
            *self._axis(bottom),
            *(self._lane(lane, _TOP + number * _ROW) for number, lane in enumerate(lanes)),
            svg.text(self._left, bottom + 15, foot, fill_opacity=svg.QUIET, font_size=10),
            width=self._width,
            height=bottom + _FOOT,
        )

    def _x(self, when: datetime) -> float:
        return self._left + (when - self._begin).total_seconds() * self._scale

    def _axis(self, bottom: float) -> Iterator[Markup]:
        most = int(self._seconds * self._scale / _TICK)
        for seconds, label in svg.ticks(self._seconds, most):
            x = self._left + seconds * self._scale
            line = svg.tag(
                "line", x1=x, x2=x, y1=_TOP - 6, y2=bottom, stroke="currentColor", stroke_opacity=svg.FAINT
            )
            yield line
            yield svg.text(x, _TOP - 11, label, text_anchor="middle", fill_opacity=svg.QUIET, font_size=10)

    def _lane(self, lane: _Lane, top: float) -> Markup:
        baseline = top + 14
        indent = 2 + lane.depth * _INDENT
        room = int((self._left - indent - 12) / svg.CHARACTER) - 2
        if not lane.state:
            name = svg.text(
                indent, baseline, shorten_middle(lane.name, room + 2), font_weight=600, fill_opacity=svg.QUIET
            )
            return svg.tag("g", name)
        shown = get_style(lane.state)
        return svg.tag(
            "g",
            svg.tag("title", self._describe(lane)),
            svg.text(indent, baseline, shown.sign, fill=shown.color, font_weight=700),
            svg.text(indent + 2 * svg.CHARACTER, baseline, shorten_middle(lane.name, room)),
            *(self._merged(lane.tries, top) if lane.summary else self._bars(lane.tries, top)),
            svg.text(self._width - 2, baseline, lane.took, text_anchor="end", fill_opacity=svg.QUIET),
        )

    def _describe(self, lane: _Lane) -> str:
        """Return the tooltip of a lane, which screen readers use, too."""
        parts = [lane.name, format_state(lane.state), lane.took]
        if lane.tries:
            begun = min(tried.start for tried in lane.tries)
            parts.append(f"began at {(begun - self._begin).total_seconds():.2f} s")
            if not lane.summary and len(lane.tries) > 1:
                parts.append(f"{len(lane.tries)} tries")
        return " · ".join(part for part in parts if part)

    def _bars(self, tries: Sequence[_Try], top: float) -> Iterator[Markup]:
        for tried in tries:
            left, right = self._x(tried.start), self._x(tried.end)
            if tried.queued and tried.queued < tried.start:
                yield self._wait(self._x(tried.queued), left, top)
            if tried.state != "queued":
                inset = (_ROW - _BAR) / 2
                yield _rect(
                    tried.state,
                    left,
                    right,
                    top + inset,
                    _BAR,
                    faded=tried.former,
                    tooltip=_describe_try(tried),
                )

    def _merged(self, tries: Sequence[_Try], top: float) -> Iterator[Markup]:
        """Yield one bar for adjacent tries in the same state, to keep the picture small."""
        waits = [(self._x(t.queued), self._x(t.start)) for t in tries if t.queued and t.queued < t.start]
        for left, right in _merge_spans(waits):
            yield self._wait(left, right, top)
        states: dict[str, list[_Try]] = {}
        for tried in tries:
            if tried.state != "queued":
                states.setdefault(tried.state, []).append(tried)
        # The states are stacked, each as high as its share, so that none hides another.
        least = min(_LEAST, _BAR / max(1, len(states)))
        spare = _BAR - least * len(states)
        top += (_ROW - _BAR) / 2
        drawn = sum(map(len, states.values()))
        for state in sort_by_progress({state: len(alike) for state, alike in states.items()}):
            alike = states[state]
            height = least + spare * len(alike) / drawn
            for left, right in _merge_spans([(self._x(t.start), self._x(t.end)) for t in alike]):
                yield _rect(state, left, right, top, height, faded=False, tooltip=format_state(state))
            top += height

    def _wait(self, left: float, right: float, top: float) -> Markup:
        return svg.tag("rect", x=left, y=top + 8, width=right - left, height=_ROW - 16, fill_opacity=0.35)


def _rect(
    state: str, left: float, right: float, top: float, height: float, *, faded: bool, tooltip: str
) -> Markup:
    color = get_style(state).color
    running = state in _RUNNING
    return svg.tag(
        "rect",
        svg.tag("title", tooltip),
        x=left,
        y=top,
        width=max(2.0, right - left),
        height=height,
        rx=min(2.0, height / 2),
        fill=color,
        fill_opacity=0.45 if faded or running else None,
        stroke=color if running else None,
        stroke_dasharray="4 2" if running else None,
    )


def _describe_try(tried: _Try) -> str:
    took = format_duration((tried.end - tried.start).total_seconds())
    return f"try {tried.number}: {format_state(tried.state)}, {took}"


def _merge_spans(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Merge spans that touch or are less than a pixel apart."""
    united: list[tuple[float, float]] = []
    for left, right in sorted(spans):
        if united and left <= united[-1][1] + 1:
            united[-1] = (united[-1][0], max(united[-1][1], right))
        else:
            united.append((left, right))
    return united
