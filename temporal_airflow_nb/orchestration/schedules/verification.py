"""Check that a Temporal Schedule fires whenever Airflow has a run to create.

Temporal's server lists the times at which an existing schedule fires; they are compared with the times that Airflow's
timetable computes, near now and around each change of the clock within a year.
"""

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

# More than a year: until the check is repeated a month later, both yearly changes of the clock lie ahead.
_AHEAD = timedelta(days=400)
_COMPARED = 100
_COMPARED_AT_A_CHANGE = 300
_AROUND_A_CHANGE = timedelta(hours=2, minutes=30)
_MAX_ADDED = 200
_MAX_FIRES = 1000
"""The number of times that the server returns at once."""


async def find_missing_times(
    client: Client, schedule_id: str, spec: ScheduleSpec, timetable: Timetable
) -> list[ScheduleIntervalSpec]:
    """
    Return the times to add to a schedule so that it fires for each run of the coming year.

    Airflow and Temporal differ where clocks change. For a local time that is skipped, Airflow creates the run an hour
    later, and Temporal doesn't fire. In an hour that occurs twice, Temporal leaves out some times east of Greenwich.

    Raises
    ------
    NotExpressibleError
        The schedule leaves out times that a change of the clock doesn't explain.
    """
    # Intervals have no time zone, so that no change of the clock affects them.
    if spec.intervals:
        return []
    begin = datetime.now(timezone.utc)
    if spec.start_at is not None:
        begin = max(begin, spec.start_at)
    zone = spec.time_zone_name or "UTC"
    missing: set[datetime] = set()
    for since, until, limit in [(begin, begin + _AHEAD, _COMPARED), *_periods_around_changes(zone, begin)]:
        # In a thread: Airflow computes up to 300 times, which would block the worker's event loop.
        wanted = await asyncio.to_thread(_list_due_times, timetable, since, until, spec.end_at, limit)
        if not wanted:
            continue
        fires = await _list_fires(client, schedule_id, since, wanted[-1])
        # The server has cut its list: later times can't be compared.
        if len(fires) == _MAX_FIRES:
            wanted = [moment for moment in wanted if moment <= fires[-1]]
        missing |= set(wanted) - set(fires)
    unexplained = [
        moment
        for moment in sorted(missing)
        if not any(since <= moment <= until for since, until, _ in _periods_around_changes(zone, begin))
    ]
    if unexplained or len(missing) > _MAX_ADDED:
        raise NotExpressibleError(f"Temporal's schedule would leave out {min(unexplained or missing)}")
    return fire_once(sorted(missing))


def _list_due_times(
    timetable: Timetable, since: datetime, until: datetime, end: datetime | None, limit: int
) -> list[datetime]:
    times = due_times(timetable, since, until=until if end is None else min(until, end), limit=limit)
    return [datetime.fromtimestamp(moment.timestamp(), timezone.utc) for moment in times]


async def _list_fires(client: Client, schedule_id: str, since: datetime, until: datetime) -> list[datetime]:
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


def _periods_around_changes(zone: str, begin: datetime) -> Iterator[tuple[datetime, datetime, int]]:
    for change in _list_offset_changes(zone, begin.date().toordinal()):
        if change + _AROUND_A_CHANGE > begin:
            yield max(begin, change - _AROUND_A_CHANGE), change + _AROUND_A_CHANGE, _COMPARED_AT_A_CHANGE


@lru_cache(maxsize=64)
def _list_offset_changes(name: str, day: int) -> list[datetime]:
    """Return the hours in which the clocks of a zone change, in the 400 days after a day."""
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
