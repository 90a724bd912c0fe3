"""Airflow's timetables as the spec of a Temporal Schedule.

The spec only says when to look: what is due then is Airflow's to decide. A time too many costs nothing, so the spec
may be wider than the timetable, for a month's last day say; it must not leave a time out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.base import TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable
from airflow.timetables.simple import AssetTriggeredTimetable
from airflow.timetables.trigger import (
    CronPartitionTimetable,
    CronTriggerTimetable,
    DeltaTriggerTimetable,
    MultipleCronTriggerTimetable,
)
from croniter import croniter  # type: ignore[import-untyped]
from temporalio.client import (
    ScheduleCalendarSpec,
    ScheduleIntervalSpec,
    ScheduleRange,
    ScheduleSpec,
)

if TYPE_CHECKING:
    from airflow.timetables.base import Timetable
    from pendulum import DateTime

_CRONS = (CronDataIntervalTimetable, CronTriggerTimetable, CronPartitionTimetable)
_DELTAS = (DeltaDataIntervalTimetable, DeltaTriggerTimetable)

# The days that can be a month's last: for February, in any year.
_LAST_DAYS = (
    ((31, 31), {1, 3, 5, 7, 8, 10, 12}),
    ((30, 30), {4, 6, 9, 11}),
    ((28, 29), {2}),
)
_RUN_UP = 3
_DECADES = timedelta(days=10_000)
_RANDOM = re.compile(r"(^|[\s,])[rR]([\s,(/]|$)")


def is_time_based(timetable: Timetable) -> bool:
    """Return whether time brings about runs, and not events of assets or people alone."""
    by_assets = isinstance(timetable, AssetTriggeredTimetable) and not isinstance(
        timetable, AssetOrTimeSchedule
    )
    return timetable.can_be_scheduled and not by_assets


class NotExpressibleError(Exception):
    """A timetable that no Temporal Schedule says the same as; its text is the reason."""


def build_spec(timetable: Timetable, restriction: TimeRestriction, next_due: datetime | None) -> ScheduleSpec:
    """
    Return when a Temporal Schedule has to fire for a DAG.

    Parameters
    ----------
    timetable, restriction
        Those of the DAG.
    next_due
        When the DAG's next run is to be created. Intervals are counted from there.

    Raises
    ------
    NotExpressibleError
        Such a timetable stays with Airflow's scheduler.
    """
    spec = ScheduleSpec()
    if type(timetable) in _CRONS:
        spec.calendars = _calendars(timetable._expression)  # type: ignore[attr-defined]
        spec.time_zone_name = _zone_name(timetable._timezone)  # type: ignore[attr-defined]
    elif type(timetable) is MultipleCronTriggerTimetable:
        each = timetable._timetables
        spec.calendars = [calendar for one in each for calendar in _calendars(one._expression)]
        spec.time_zone_name = _zone_name(each[0]._timezone)
    elif type(timetable) in _DELTAS:
        spec.intervals = [_interval(timetable._delta, next_due)]  # type: ignore[attr-defined]
    else:
        raise NotExpressibleError(f"{timetable.type_name} is neither a cron expression nor an interval")
    if restriction.earliest is not None:
        spec.start_at = restriction.earliest - timedelta(seconds=1)
    if restriction.latest is not None:
        # A data interval that begins in time ends, and has its run created, later.
        for last in _due_times(timetable, restriction.latest, latest=None, limit=1):
            spec.end_at = last + timedelta(seconds=1)
    return spec


def due_times(
    timetable: Timetable,
    since: datetime,
    *,
    until: datetime | None = None,
    latest: datetime | None = None,
    limit: int,
) -> Iterable[DateTime]:
    """
    Yield when Airflow creates the runs of the schedule from ``since`` on; no more than ``limit`` times.

    Raises
    ------
    NotExpressibleError
        Airflow can't say, as for February 30th.
    """
    earliest: Any = _pendulum(since)
    if isinstance(timetable, CronDataIntervalTimetable):
        # A run is due at its interval's end; and near a change of the clock, where Airflow starts from matters.
        with _airflow_has_times():
            for _ in range(_RUN_UP):
                earliest = timetable._get_prev(earliest)
    for due in _due_times(timetable, earliest, latest, limit + _RUN_UP):
        if until is not None and due > until:
            return
        if due >= since:
            yield due


def _due_times(
    timetable: Timetable, earliest: datetime | None, latest: datetime | None, limit: int
) -> Iterable[DateTime]:
    restriction = TimeRestriction(_pendulum(earliest), _pendulum(latest), catchup=True)
    info = None
    for _ in range(limit):
        with _airflow_has_times():
            info = timetable.next_dagrun_info_v2(last_dagrun_info=info, restriction=restriction)
        if info is None:
            return
        yield info.run_after


@contextmanager
def _airflow_has_times() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise NotExpressibleError(f"Airflow has no times for it: {error}") from error


def fire_once(moments: Iterable[datetime]) -> list[ScheduleIntervalSpec]:
    """Return what fires at single moments: intervals so long that they have one of these in decades."""
    return [
        ScheduleIntervalSpec(_DECADES, timedelta(seconds=int(moment.timestamp())) % _DECADES)
        for moment in moments
    ]


def _calendars(expression: str) -> list[ScheduleCalendarSpec]:
    """Translate what Airflow's own parser makes of a cron expression: Temporal's reads some of them differently."""
    if _RANDOM.search(expression):
        raise NotExpressibleError(f"cron expression {expression!r} asks for random times")
    cron = croniter(expression)
    if cron.nearest_weekday:
        raise NotExpressibleError(f"cron expression {expression!r} asks for the weekday nearest to a day")
    minute, hour, day, month, weekday, *more = cron.expanded
    second = more[0] if more else [0]
    year = more[1] if len(more) > 1 else ["*"]
    common: dict[str, Any] = {
        "second": _ranges(second, 0, 59),
        "minute": _ranges(minute, 0, 59),
        "hour": _ranges(hour, 0, 23),
        "year": () if year == ["*"] else _ranges(year),
        "comment": expression,
    }
    months = set(range(1, 13)) if month == ["*"] else set(month)
    days = _days_of_month(day, months) if day != ["*"] else []
    if weekday != ["*"]:
        # A day is met by either field where both say something.
        days += _days_of_week(weekday, cron.nth_weekday_of_month, months)
    if not days:
        days = [{"month": _ranges(months)}]
    return [ScheduleCalendarSpec(**common, **fields) for fields in days]


def _days_of_month(days: Sequence[Any], months: set[int]) -> list[dict[str, Any]]:
    numbers = [day for day in days if day != "l"]
    found = [{"day_of_month": _ranges(numbers), "month": _ranges(months)}] if numbers else []
    if "l" in days:
        found += [
            {"day_of_month": (ScheduleRange(*last),), "month": _ranges(months & those)}
            for last, those in _LAST_DAYS
            if months & those
        ]
    return found


def _days_of_week(days: Sequence[Any], nth: dict[int, set[Any]], months: set[int]) -> list[dict[str, Any]]:
    if not nth:
        return [{"day_of_week": _ranges(days), "month": _ranges(months)}]
    found = []
    for day, which in nth.items():
        for week in sorted(which - {"l"}):
            first = 7 * (week - 1) + 1
            if first <= 31:
                these = (ScheduleRange(first, min(first + 6, 31)),)
                found.append({"day_of_week": _ranges([day]), "day_of_month": these, "month": _ranges(months)})
        if "l" in which:
            found += [
                {
                    "day_of_week": _ranges([day]),
                    "day_of_month": (ScheduleRange(last[0] - 6, last[1]),),
                    "month": _ranges(months & those),
                }
                for last, those in _LAST_DAYS
                if months & those
            ]
    return found


def _ranges(values: Iterable[Any], least: int = 0, most: int = 0) -> tuple[ScheduleRange, ...]:
    values = list(values)
    if values == ["*"]:
        return (ScheduleRange(least, most),)
    ranges: list[list[int]] = []
    for value in sorted({int(value) for value in values}):
        if ranges and ranges[-1][1] == value - 1:
            ranges[-1][1] = value
        else:
            ranges.append([value, value])
    return tuple(ScheduleRange(first, last) for first, last in ranges)


def _interval(delta: Any, next_due: datetime | None) -> ScheduleIntervalSpec:
    if not isinstance(delta, timedelta):
        raise NotExpressibleError(f"interval {delta!r} isn't a timedelta")
    if delta < timedelta(seconds=1) or delta % timedelta(seconds=1):
        raise NotExpressibleError(f"interval {delta} isn't of whole seconds")
    # Temporal knows no fractions of a second; what it starts waits for the rest.
    phase = 0 if next_due is None else math.floor(next_due.timestamp())
    return ScheduleIntervalSpec(delta, timedelta(seconds=phase % int(delta.total_seconds())))


def _zone_name(zone: Any) -> str:
    """Return the IANA name of a zone of Airflow."""
    if name := getattr(zone, "key", None):
        return name
    hours, rest = divmod(int(zone.utcoffset(None).total_seconds()), 3600)
    if rest or not -12 <= hours <= 14:
        raise NotExpressibleError(f"time zone {zone.name!r} has no name that Temporal knows")
    # The signs of these names are those of POSIX.
    return f"Etc/GMT{-hours:+d}" if hours else "UTC"


def _pendulum(moment: datetime | None) -> DateTime | None:
    from airflow._shared.timezones.timezone import coerce_datetime

    return coerce_datetime(moment)
