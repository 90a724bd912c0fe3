"""Whether a Temporal Schedule fires whenever Airflow has a run to create: the server itself says when it does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo

from airflow.timetables.base import Timetable
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.workflowservice.v1 import ListScheduleMatchingTimesRequest
from temporalio.client import Client, ScheduleIntervalSpec, ScheduleSpec

from temporal_airflow_nb.orchestration.schedules.timetables import NotExpressibleError, due_times, fire_once

# Both changes of the clock that a year has lie ahead, until the check is made again a month later.
_AHEAD = timedelta(days=400)
_COMPARED = 100
_COMPARED_AT_A_CHANGE = 300
_AROUND_A_CHANGE = timedelta(hours=2, minutes=30)
_MOST_ADDED = 200
_MOST_FIRES = 1000
"""How many times the server returns at fire_once."""


async def find_missing_times(
    client: Client, schedule_id: str, spec: ScheduleSpec, timetable: Timetable
) -> list[ScheduleIntervalSpec]:
    """
    Return what to add to a schedule that exists, so that it fires for each run of the coming year.

    The two disagree where clocks change. Of a time that isn't there, Airflow creates the run an hour later and Temporal
    leaves it out; of an hour that is there twice, Temporal leaves out some times east of Greenwich.

    Raises
    ------
    NotExpressibleError
        The schedule leaves out more than a change of the clock explains.
    """
    if spec.intervals:
        return []
    begin = datetime.now(timezone.utc)
    if spec.start_at is not None:
        begin = max(begin, spec.start_at)
    zone = spec.time_zone_name or "UTC"
    missing: set[datetime] = set()
    for since, until, most in [(begin, begin + _AHEAD, _COMPARED), *_changes(zone, begin)]:
        wanted = await asyncio.to_thread(_wanted, timetable, since, until, spec.end_at, most)
        if not wanted:
            continue
        fires = await _fires(client, schedule_id, since, wanted[-1])
        if len(fires) == _MOST_FIRES:
            wanted = [moment for moment in wanted if moment <= fires[-1]]
        missing |= set(wanted) - set(fires)
    unexplained = [
        moment
        for moment in sorted(missing)
        if not any(since <= moment <= until for since, until, _ in _changes(zone, begin))
    ]
    if unexplained or len(missing) > _MOST_ADDED:
        raise NotExpressibleError(f"Temporal's schedule would leave out {min(unexplained or missing)}")
    return fire_once(sorted(missing))


def _wanted(
    timetable: Timetable, since: datetime, until: datetime, end: datetime | None, most: int
) -> list[datetime]:
    times = due_times(timetable, since, until=until if end is None else min(until, end), limit=most)
    return [datetime.fromtimestamp(moment.timestamp(), timezone.utc) for moment in times]


async def _fires(client: Client, schedule_id: str, since: datetime, until: datetime) -> list[datetime]:
    answer = await client.workflow_service.list_schedule_matching_times(
        ListScheduleMatchingTimesRequest(
            namespace=client.namespace,
            schedule_id=schedule_id,
            start_time=_timestamp(since - timedelta(seconds=1)),
            end_time=_timestamp(until + timedelta(seconds=1)),
        ),
        retry=True,
    )
    return [moment.ToDatetime(timezone.utc) for moment in answer.start_time]


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _changes(zone: str, begin: datetime) -> Iterator[tuple[datetime, datetime, int]]:
    for change in _offset_changes(zone, begin.date().toordinal()):
        if change + _AROUND_A_CHANGE > begin:
            yield max(begin, change - _AROUND_A_CHANGE), change + _AROUND_A_CHANGE, _COMPARED_AT_A_CHANGE


@lru_cache(maxsize=64)
def _offset_changes(name: str, day: int) -> list[datetime]:
    """Return the hours in which the clocks of a zone change within a year of a day."""
    zone = ZoneInfo(name)
    begin = datetime.fromordinal(day).replace(tzinfo=timezone.utc)
    found = []
    for days in range(_AHEAD.days):
        moment = begin + timedelta(days=days)
        if _offset(moment, zone) != _offset(moment + timedelta(days=1), zone):
            hours = (moment + timedelta(hours=hour) for hour in range(24))
            found += [
                hour for hour in hours if _offset(hour, zone) != _offset(hour + timedelta(hours=1), zone)
            ]
    return found


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()
