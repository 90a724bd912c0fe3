"""The grid of a run, computed from a snapshot for every renderer.

All classes are immutable, so threads may share a grid. The live grid builds one for each output; the CLI and the
representations of a run build one on demand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

from temporal_airflow_nb.display.states import FINAL_RUN_STATES, NO_STATUS, combine_states, sort_by_priority
from temporal_airflow_nb.printable_text import make_printable

Snapshot = Mapping[str, Any]

# If there are too many rows, tasks in these states are merged first, because nothing happens in them.
_QUIET = frozenset({"success", "skipped", "removed", NO_STATUS, "scheduled"})


class Try(NamedTuple):
    """A former try of a task instance."""

    try_number: int
    state: str
    start: datetime | None
    end: datetime | None


@dataclass(frozen=True)
class Instance:
    """One task instance."""

    task_id: str
    map_index: int
    label: str
    state: str
    try_number: int
    max_tries: int
    queued: datetime | None
    start: datetime | None
    end: datetime | None
    seconds: float | None
    former: tuple[Try, ...] = ()

    @property
    def name(self) -> str:
        """``task_id``, with the map index if there is one."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


@dataclass(frozen=True)
class Row:
    """A line of the grid: a task, all instances of a mapped task, or several merged tasks."""

    name: str
    group: str
    operator: str
    instances: tuple[Instance, ...]
    mapped: bool = False
    folded: bool = False

    @cached_property
    def counts(self) -> dict[str, int]:
        """Instances by state, the most important states first."""
        return sort_by_priority(Counter(instance.state for instance in self.instances))

    @property
    def state(self) -> str:
        """The state that represents all instances."""
        return self.instances[0].state if len(self.instances) == 1 else combine_states(self.counts)

    @property
    def several(self) -> bool:
        """Whether the row can have several instances or tasks."""
        return self.mapped or self.folded

    @property
    def latest(self) -> Instance:
        """The instance with the most tries."""
        return max(self.instances, key=lambda i: (i.try_number, i.max_tries))

    @property
    def tries(self) -> str:
        """``2 of 3`` if a retry is allowed or happened, else ``1``, or nothing before the first try."""
        latest = self.latest
        if latest.try_number < 1 or self.folded:
            return ""
        if latest.max_tries < 1 and latest.try_number == 1:
            return "1"
        return f"{latest.try_number} of {max(latest.max_tries + 1, latest.try_number)}"

    @property
    def start(self) -> datetime | None:
        """The start of the first instance."""
        return min((i.start for i in self.instances if i.start), default=None)

    @property
    def queued(self) -> datetime | None:
        """The time at which the first instance was queued."""
        return min((i.queued for i in self.instances if i.queued), default=None)

    def ended(self, now: datetime) -> datetime | None:
        """Return the end of the last instance, or ``now`` while one runs."""
        if any(i.start and not i.end for i in self.instances):
            return now
        return max((i.end for i in self.instances if i.end), default=None)


@dataclass(frozen=True)
class Grid:
    """A run, prepared for renderers."""

    dag_id: str
    run_id: str
    state: str
    start: datetime | None
    end: datetime | None
    now: datetime
    rows: tuple[Row, ...]
    links: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    details: Mapping[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether the run has ended."""
        return self.state in FINAL_RUN_STATES

    @property
    def seconds(self) -> float | None:
        """The duration of the run until its end or now, in seconds."""
        return _seconds(self.start, self.end or self.now)

    @property
    def instances(self) -> Iterator[Instance]:
        """Every task instance."""
        return (instance for row in self.rows for instance in row.instances)

    @property
    def counts(self) -> dict[str, int]:
        """Task instances by state, the most important states first."""
        return sort_by_priority(Counter(instance.state for instance in self.instances))

    @property
    def failures(self) -> list[Instance]:
        """The failed instances: first one of each task, then the others."""
        failed = [instance for instance in self.instances if instance.state == "failed"]
        firsts = {instance.task_id: instance for instance in reversed(failed)}
        return sorted(failed, key=lambda instance: firsts[instance.task_id] is not instance)

    def seconds_of(self, row: Row) -> float | None:
        """Return the seconds that a row took: the duration of its task, or the span of its instances."""
        if not row.several and row.instances[0].seconds is not None:
            return row.instances[0].seconds
        return _seconds(row.start, row.ended(self.now))

    def span(self, row: Row) -> tuple[float, float, float] | None:
        """Return when a row was queued, began and ended, as fractions of the run; None if it hasn't begun."""
        begin, end = row.start, row.ended(self.now)
        if not (begin and end and self.start and self.seconds):
            return None
        queued = min(row.queued or begin, begin)
        return self.fraction(queued), self.fraction(begin), self.fraction(end)

    def fraction(self, when: datetime) -> float:
        """Return the position of a time in the run, from 0 to 1."""
        if not (self.start and self.seconds):
            return 0.0
        return min(1.0, max(0.0, (when - self.start).total_seconds() / self.seconds))

    def lines(self) -> Iterator[tuple[int, str | Row]]:
        """Yield depth and content of each line: rows, and the name of a group before its first row."""
        opened: tuple[str, ...] = ()
        for row in self.rows:
            path = tuple(row.group.split(".")) if row.group else ()
            common = next(
                (i for i, (a, b) in enumerate(zip(opened, path, strict=False)) if a != b),
                min(len(opened), len(path)),
            )
            for depth in range(common, len(path)):
                yield depth, path[depth]
            opened = path
            yield len(path), row

    def shortened(self, limit: int) -> Grid:
        """Return the grid with at most ``limit`` lines by merging neighbours in the same state."""
        # From the least loss to the greatest: first tasks in which nothing happens, and within their groups.
        short = self
        for quiet_only, across_groups in ((True, False), (True, True), (False, False), (False, True)):
            if _fits(short, limit):
                return short
            short = replace(short, rows=tuple(_folded(short.rows, quiet_only, across_groups)))
        if not _fits(short, limit):
            rows = tuple(replace(row, group="") for row in short.rows)
            short = replace(short, rows=(*rows[: limit - 1], _fold(rows[limit - 1 :])))
        return short


def build_grid(
    snapshot: Snapshot,
    *,
    now: datetime | None = None,
    note: str = "",
    details: Mapping[tuple[str, int], Mapping[str, Any]] | None = None,
) -> Grid:
    """Build the grid of a snapshot.

    Parameters
    ----------
    snapshot
        A run as reported by the stack.
    now
        The time at which running tasks are measured; the present if None.
    note
        A sentence shown with the run, such as about a lost connection.
    details
        Answers to ``get_task`` for failed task instances, by task id and map index.
    """
    return Grid(
        dag_id=snapshot["dag_id"],
        run_id=snapshot["run_id"],
        state=snapshot.get("state") or "queued",
        start=parse_time(snapshot.get("start_date")),
        end=parse_time(snapshot.get("end_date")),
        now=now or datetime.now(timezone.utc),
        rows=tuple(_rows(snapshot.get("tasks", ()))),
        links=dict(snapshot.get("links") or {}),
        note=make_printable(note),
        details=details or {},
    )


def parse_time(text: str | None) -> datetime | None:
    """Parse an ISO 8601 time as an aware datetime in UTC."""
    if not text:
        return None
    # Python 3.10's `fromisoformat` doesn't accept "Z".
    parsed = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    return parsed.astimezone(timezone.utc) if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)


def shorten(text: str, width: int) -> str:
    """Shorten a text to ``width`` columns by removing its end."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def format_duration(seconds: float | None) -> str:
    """Format a duration with at most three significant figures.

    >>> [format_duration(s) for s in (0.0421, 1.5, 75.2, 4000, None)]
    ['0.04 s', '1.50 s', '1 min 15 s', '1 h 06 min', '']
    """
    if seconds is None:
        return ""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 24 else f"{hours // 24} d {hours % 24:02d} h"


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return max(0.0, (end - start).total_seconds()) if start and end else None


def _instance(task: Mapping[str, Any]) -> Instance:
    return Instance(
        task_id=task["task_id"],
        map_index=task.get("map_index", -1),
        label=make_printable(str(task.get("label") or "")),
        state=task.get("state") or NO_STATUS,
        try_number=task.get("try_number") or 0,
        max_tries=task.get("max_tries") or 0,
        queued=parse_time(task.get("queued_dttm")),
        start=parse_time(task.get("start_date")),
        end=parse_time(task.get("end_date")),
        seconds=task.get("duration"),
        former=tuple(
            Try(number, state or NO_STATUS, parse_time(start), parse_time(end))
            for number, state, _, start, end in task.get("tries") or ()
        ),
    )


def _rows(tasks: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for task in tasks:
        by_task.setdefault(task["task_id"], []).append(task)
    rows = []
    for task_id, members in by_task.items():
        group = members[0].get("group") or ""
        mapped = any(member.get("map_index", -1) >= 0 for member in members)
        name = task_id[len(group) + 1 :] if group and task_id.startswith(f"{group}.") else task_id
        instances = tuple(map(_instance, members))
        rows.append(Row(name, group, members[0].get("operator") or "", instances, mapped))
    return _by_group(rows, "")


def _by_group(rows: Sequence[Row], parent: str) -> Iterator[Row]:
    """Reorder rows so that the members of each group follow its first one."""
    prefix = f"{parent}." if parent else ""
    branches: dict[tuple[bool, str], list[Row]] = {}
    for row in rows:
        inside = row.group != parent
        name = row.group[len(prefix) :].split(".")[0] if inside else row.instances[0].task_id
        branches.setdefault((inside, name), []).append(row)
    for (inside, name), members in branches.items():
        yield from _by_group(members, prefix + name) if inside else members


def _fits(candidate: Grid, limit: int) -> bool:
    return len(candidate.rows) <= limit and sum(1 for _ in candidate.lines()) <= limit


def _fold(rows: Sequence[Row]) -> Row:
    instances = tuple(instance for row in rows for instance in row.instances)
    groups = {row.group for row in rows}
    tasks = len({instance.task_id for instance in instances})
    return Row(f"{tasks} tasks", groups.pop() if len(groups) == 1 else "", "", instances, folded=True)


def _folded(rows: Sequence[Row], quiet_only: bool, across_groups: bool) -> Iterator[Row]:
    for (_, state), run in groupby(rows, key=lambda row: (across_groups or row.group, row.state)):
        members = list(run)
        if len(members) > 2 and (state in _QUIET or not quiet_only):
            yield _fold(members)
        else:
            yield from members
