"""Airflow's timetables as the spec of a Temporal Schedule.

A Schedule only starts a check; Airflow decides which runs are due then. A fire too many therefore creates nothing, and
the spec may be wider than the timetable, for example for the last day of a month; but it must not leave a time out.

The worker calls it, through ``synchronizer.py`` and ``verification.py``. It has no state and asks neither the database
nor Temporal. The fields of Airflow's timetables that it reads are private; the contract test checks that they exist.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict

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

# The days that can be the last of a month; for February, in any year.
_LAST_DAYS = (
    ((31, 31), {1, 3, 5, 7, 8, 10, 12}),
    ((30, 30), {4, 6, 9, 11}),
    ((28, 29), {2}),
)
# How many intervals earlier than asked for the times of an interval timetable are computed.
_EXTRA_INTERVALS = 3
_DECADES = timedelta(days=10_000)
# croniter's `R`, a random value.
_RANDOM = re.compile(r"(^|[\s,])[rR]([\s,(/]|$)")


class _TimeFields(TypedDict):
    """Fields of a ``ScheduleCalendarSpec`` that all days of a cron expression share."""

    second: Sequence[ScheduleRange]
    minute: Sequence[ScheduleRange]
    hour: Sequence[ScheduleRange]
    year: Sequence[ScheduleRange]
    comment: str


class _DayFields(TypedDict, total=False):
    """Fields of a ``ScheduleCalendarSpec`` that select days."""

    day_of_month: Sequence[ScheduleRange]
    day_of_week: Sequence[ScheduleRange]
    month: Sequence[ScheduleRange]


def is_time_based(timetable: Timetable) -> bool:
    """Return whether a timetable creates runs by time, not only by asset events or by hand."""
    by_assets = isinstance(timetable, AssetTriggeredTimetable) and not isinstance(
        timetable, AssetOrTimeSchedule
    )
    return timetable.can_be_scheduled and not by_assets


class NotExpressibleError(Exception):
    """A timetable that no Temporal Schedule can express; its text is the reason."""


def build_spec(timetable: Timetable, restriction: TimeRestriction, next_due: datetime | None) -> ScheduleSpec:
    """
    Return the spec of a Temporal Schedule that fires whenever a run of a DAG is due.

    Parameters
    ----------
    timetable, restriction
        The DAG's timetable, and its start and end dates.
    next_due
        The time at which the DAG's next run is due, from which intervals are counted.

    Raises
    ------
    NotExpressibleError
        The timetable can't be expressed: Airflow's scheduler has to create the runs.
    """
    spec = ScheduleSpec()
    # By exact type: a subclass may compute other times from the same fields.
    if type(timetable) in _CRONS:
        spec.calendars = _calendars(timetable._expression)
        spec.time_zone_name = _zone_name(timetable._timezone)
    elif type(timetable) is MultipleCronTriggerTimetable:
        each = timetable._timetables
        spec.calendars = [calendar for one in each for calendar in _calendars(one._expression)]
        spec.time_zone_name = _zone_name(each[0]._timezone)
    elif type(timetable) in _DELTAS:
        spec.intervals = [_interval(timetable._delta, next_due)]
    else:
        raise NotExpressibleError(f"{timetable.type_name} is neither a cron expression nor an interval")
    if restriction.earliest is not None:
        spec.start_at = restriction.earliest - timedelta(seconds=1)
    if restriction.latest is not None:
        # The end date bounds the start of data intervals: the run of the last one is due only at its end.
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
    Yield the times from ``since`` on at which Airflow creates runs; at most ``limit`` of them.

    Raises
    ------
    NotExpressibleError
        Airflow can't compute the times, for example for February 30th.
    """
    earliest: Any = _pendulum(since)
    if isinstance(timetable, CronDataIntervalTimetable):
        # A run is due at the end of its interval, which starts earlier. And near a change of the clock, the times that
        # Airflow computes depend on the time from which it starts.
        with _airflow_errors_as_reasons():
            for _ in range(_EXTRA_INTERVALS):
                earliest = timetable._get_prev(earliest)
    for due in _due_times(timetable, earliest, latest, limit + _EXTRA_INTERVALS):
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
        with _airflow_errors_as_reasons():
            info = timetable.next_dagrun_info_v2(last_dagrun_info=info, restriction=restriction)
        if info is None:
            return
        yield info.run_after


@contextmanager
def _airflow_errors_as_reasons() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Timetables and croniter raise errors of several types for dates that don't exist. The doctor shows the reason,
        # and Airflow's scheduler remains responsible for the DAG.
        raise NotExpressibleError(f"Airflow has no times for it: {error}") from error


def fire_once(moments: Iterable[datetime]) -> list[ScheduleIntervalSpec]:
    """Return intervals that each fire at one of ``moments``, and then not for decades."""
    return [
        ScheduleIntervalSpec(_DECADES, timedelta(seconds=int(moment.timestamp())) % _DECADES)
        for moment in moments
    ]


def _calendars(expression: str) -> list[ScheduleCalendarSpec]:
    """Translate a cron expression as Airflow's parser reads it; Temporal's reads some expressions differently."""
    if _RANDOM.search(expression):
        raise NotExpressibleError(f"cron expression {expression!r} asks for random times")
    cron = croniter(expression)
    if cron.nearest_weekday:
        raise NotExpressibleError(f"cron expression {expression!r} asks for the weekday nearest to a day")
    minute, hour, day, month, weekday, *more = cron.expanded
    second = more[0] if more else [0]
    year = more[1] if len(more) > 1 else ["*"]
    common: _TimeFields = {
        "second": _ranges(second, 0, 59),
        "minute": _ranges(minute, 0, 59),
        "hour": _ranges(hour, 0, 23),
        "year": () if year == ["*"] else _ranges(year),
        "comment": expression,
    }
    months = set(range(1, 13)) if month == ["*"] else set(month)
    days = _days_of_month(day, months) if day != ["*"] else []
    if weekday != ["*"]:
        # If both fields restrict the day, cron takes a day that matches either of them.
        days += _days_of_week(weekday, cron.nth_weekday_of_month, months)
    if not days:
        days = [{"month": _ranges(months)}]
    return [ScheduleCalendarSpec(**common, **fields) for fields in days]


def _days_of_month(days: Sequence[Any], months: set[int]) -> list[_DayFields]:
    numbers = [day for day in days if day != "l"]
    found: list[_DayFields] = (
        [{"day_of_month": _ranges(numbers), "month": _ranges(months)}] if numbers else []
    )
    if "l" in days:
        found += [
            {"day_of_month": (ScheduleRange(*last),), "month": _ranges(months & those)}
            for last, those in _LAST_DAYS
            if months & those
        ]
    return found


def _days_of_week(days: Sequence[Any], nth: dict[int, set[Any]], months: set[int]) -> list[_DayFields]:
    if not nth:
        return [{"day_of_week": _ranges(days), "month": _ranges(months)}]
    found: list[_DayFields] = []
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
    # Temporal's intervals have whole seconds: it fires up to a second early, and the workflow waits for the rest.
    phase = 0 if next_due is None else math.floor(next_due.timestamp())
    return ScheduleIntervalSpec(delta, timedelta(seconds=phase % int(delta.total_seconds())))


def _zone_name(zone: Any) -> str:
    """Return the IANA name of a zone of Airflow."""
    name: str | None = getattr(zone, "key", None)
    if name:
        return name
    hours, rest = divmod(int(zone.utcoffset(None).total_seconds()), 3600)
    if rest or not -12 <= hours <= 14:
        raise NotExpressibleError(f"time zone {zone.name!r} has no name that Temporal knows")
    # The signs in these names follow POSIX: `Etc/GMT-2` is two hours ahead of UTC.
    return f"Etc/GMT{-hours:+d}" if hours else "UTC"


def _pendulum(moment: datetime | None) -> DateTime | None:
    from airflow._shared.timezones.timezone import coerce_datetime

    coerced: DateTime | None = coerce_datetime(moment)
    return coerced
