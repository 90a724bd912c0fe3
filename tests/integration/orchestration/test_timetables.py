"""What Temporal's server makes of Airflow's timetables, compared with what Airflow does."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.base import TimeRestriction
from airflow.timetables.events import EventsTimetable
from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable
from airflow.timetables.simple import (
    AssetTriggeredTimetable,
    ContinuousTimetable,
    NullTimetable,
    OnceTimetable,
)
from airflow.timetables.trigger import (
    CronTriggerTimetable,
    DeltaTriggerTimetable,
    MultipleCronTriggerTimetable,
)
from dateutil.relativedelta import relativedelta
from temporalio.client import Schedule, ScheduleSpec, ScheduleState

from temporal_airflow_nb.orchestration.schedules.synchronizer import ScheduleSynchronizer
from temporal_airflow_nb.orchestration.schedules.timetables import (
    NotExpressibleError,
    build_spec,
    due_times,
    is_time_based,
)
from temporal_airflow_nb.orchestration.schedules.verification import _list_fires
from tests.support.stack_helpers import with_client

ALWAYS = TimeRestriction(None, None, catchup=True)
DIALECT = (
    "@weekly",
    "@monthly",
    "@quarterly",
    "0 22-4/2 * 6 *",
    "0 0 13 * 5",
    "0 0 1,15 * mon",
    "0 0 */2 2 1",
    "0 12 L * *",
    "0 12 L,15 2,3 *",
    "0 0 * * fri#2",
    "0 0 * * L5",
    "0 0 * * mon#1,L5",
    "0 0 * 4 5-7",
    "0 0 ? 5 *",
    "0 0 31 * *",
    "30 10 1 1 * 15",
)
"""Cron expressions that Temporal's parser refuses or reads differently, and some that it reads the same way."""
ROUND_THE_CLOCK = ("0 2 * * *", "30 2 * * *", "30 1 * * *", "@hourly", "*/5 * * * *", "15 */2 * * *")
ZONES = ("UTC", "Europe/Zurich", "America/New_York", "Antarctica/Troll")


def spec(timetable, restriction=ALWAYS, next_due=None) -> ScheduleSpec:
    return build_spec(timetable, restriction, next_due)


def utc(*parts) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)


async def _missing_times(client, name, timetable, spans) -> tuple[list[datetime], int]:
    """Create a Schedule as the worker does; return the due times that it misses, and the number of due times."""
    synchronizer = ScheduleSynchronizer(client)
    schedule = Schedule(synchronizer._action(name), spec(timetable), state=ScheduleState(paused=True))
    await synchronizer._put_schedule(name, schedule, timetable)
    schedule_id = synchronizer.prefix + name
    missing, wanted = [], 0
    for since, until in spans:
        due = [
            datetime.fromtimestamp(moment.timestamp(), timezone.utc)
            for moment in due_times(timetable, since, until=until, limit=2_000)
        ]
        fires: set[datetime] = set()
        start = since
        while page := [
            moment for moment in await _list_fires(client, schedule_id, start, until) if moment not in fires
        ]:
            fires |= set(page)
            start = page[-1]
        missing += [moment for moment in due if moment not in fires]
        wanted += len(due)
    await client.get_schedule_handle(schedule_id).delete()
    return missing, wanted


def changes_of_clock(zone: str, begin: datetime) -> list[datetime]:
    offset = lambda moment: moment.astimezone(ZoneInfo(zone)).utcoffset()  # noqa: E731
    hours = [begin + timedelta(hours=hour) for hour in range(24 * 380)]
    return [hour for hour in hours if offset(hour) != offset(hour + timedelta(hours=1))]


@pytest.mark.parametrize(
    ("zone", "timetable"),
    [*((zone, CronTriggerTimetable) for zone in ZONES), ("Europe/Zurich", CronDataIntervalTimetable)],
)
def test_a_schedule_fires_for_each_run_around_a_change_of_the_clock(stack, zone, timetable):
    now = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    changes = changes_of_clock(zone, now) or [now.replace(hour=1) + timedelta(days=100)]
    nights = [(change - timedelta(hours=6), change + timedelta(hours=6)) for change in changes]
    assert len(nights) >= (1 if zone == "UTC" else 2)

    async def use(client):
        for number, cron in enumerate(ROUND_THE_CLOCK):
            name = f"clock-{timetable.__name__}-{zone}-{number}"
            missing, wanted = await _missing_times(client, name, timetable(cron, timezone=zone), nights)
            assert wanted >= 1, cron
            assert not missing, cron

    with_client(stack, use)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Zurich"])
def test_a_schedule_fires_for_each_run_of_a_year_in_any_cron_dialect(stack, zone):
    begin = datetime.now(timezone.utc)

    async def use(client):
        for number, cron in enumerate(DIALECT):
            timetable = CronTriggerTimetable(cron, timezone=zone)
            span = (begin, begin + timedelta(days=380))
            missing, wanted = await _missing_times(client, f"year-{zone}-{number}", timetable, [span])
            assert wanted >= 1, cron
            assert not missing, cron

    with_client(stack, use)


def test_a_schedule_that_leaves_out_unexplained_times_is_refused(stack):
    wanted = CronTriggerTimetable("0 2 * * *", timezone="Europe/Zurich")
    other = CronTriggerTimetable("0 2 * * 1-6", timezone="Europe/Zurich")

    async def use(client):
        synchronizer = ScheduleSynchronizer(client)
        schedule = Schedule(synchronizer._action("refused"), spec(other), state=ScheduleState(paused=True))
        with pytest.raises(NotExpressibleError, match="would leave out"):
            await synchronizer._put_schedule("refused", schedule, wanted)
        await client.get_schedule_handle(synchronizer.prefix + "refused").delete()

    with_client(stack, use)


def test_several_crons_become_one_schedule(stack):
    timetable = MultipleCronTriggerTimetable("0 2 * * *", "30 14 * * 5", timezone="Europe/Zurich")
    begin = datetime.now(timezone.utc)

    async def use(client):
        return await _missing_times(client, "several", timetable, [(begin, begin + timedelta(days=380))])

    missing, wanted = with_client(stack, use)
    assert wanted > 400
    assert not missing


@pytest.mark.parametrize("timetable", [DeltaTriggerTimetable, DeltaDataIntervalTimetable])
@pytest.mark.parametrize("delta", [timedelta(seconds=7), timedelta(minutes=90), timedelta(days=3, hours=5)])
def test_an_interval_fires_when_the_next_run_is_due(stack, timetable, delta):
    due = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=11)

    async def use(client):
        synchronizer = ScheduleSynchronizer(client)
        name = f"every-{timetable.__name__}-{delta.total_seconds():.0f}"
        await synchronizer._put_schedule(
            name, Schedule(synchronizer._action(name), spec(timetable(delta), next_due=due)), timetable(delta)
        )
        handle = client.get_schedule_handle(synchronizer.prefix + name)
        fires = (await handle.describe()).info.next_action_times
        await handle.delete()
        return fires

    fires = with_client(stack, use)
    first = fires.index(due)
    assert fires[first:][:4] == [due + delta * number for number in range(4)][: len(fires) - first]


def test_a_schedule_has_the_start_and_the_end_of_its_dag():
    begin, end = utc(2027, 1, 1), utc(2027, 1, 31)
    restriction = TimeRestriction(begin, end, catchup=True)  # type: ignore[arg-type]
    triggered = spec(CronTriggerTimetable("@daily", timezone="UTC"), restriction)
    assert triggered.start_at == begin - timedelta(seconds=1)
    assert triggered.end_at == end + timedelta(seconds=1)
    by_interval = spec(CronDataIntervalTimetable("@daily", timezone="UTC"), restriction)
    assert by_interval.end_at == utc(2027, 2, 1) + timedelta(seconds=1), (
        "the last interval ends after its start"
    )


def test_the_name_of_a_fixed_offset_has_the_sign_of_posix():
    assert spec(CronTriggerTimetable("@daily", timezone=_fixed(2))).time_zone_name == "Etc/GMT-2"
    assert spec(CronTriggerTimetable("@daily", timezone=_fixed(-5))).time_zone_name == "Etc/GMT+5"
    assert spec(CronTriggerTimetable("@daily", timezone=_fixed(0))).time_zone_name == "UTC"


def _fixed(hours: float):
    from airflow._shared.timezones.timezone import parse_timezone

    return parse_timezone(int(hours * 3600))


class Custom(CronDataIntervalTimetable):
    """A timetable of a plugin, which may use the expression in any way."""


@pytest.mark.parametrize(
    ("timetable", "reason"),
    [
        (OnceTimetable(), "OnceTimetable is neither a cron expression nor an interval"),
        (ContinuousTimetable(), "ContinuousTimetable is neither"),
        (EventsTimetable([utc(2027, 1, 1)]), "EventsTimetable is neither"),  # type: ignore[list-item]
        (Custom("@daily", "UTC"), "Custom is neither"),
        (DeltaTriggerTimetable(relativedelta(months=1)), "isn't a timedelta"),
        (DeltaTriggerTimetable(timedelta(seconds=1.5)), "isn't of whole seconds"),
        (DeltaTriggerTimetable(timedelta(milliseconds=100)), "isn't of whole seconds"),
        (CronTriggerTimetable("R 0 * * *", timezone="UTC"), "asks for random times"),
        (CronTriggerTimetable("0 0 15W * *", timezone="UTC"), "the weekday nearest to a day"),
        (CronTriggerTimetable("@daily", timezone=_fixed(5.5)), "no name that Temporal knows"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_the_error_names_the_reason(timetable, reason):
    assert is_time_based(timetable)
    with pytest.raises(NotExpressibleError, match=reason):
        spec(timetable)


def test_a_date_that_never_occurs_is_a_reason():
    with pytest.raises(NotExpressibleError, match="Airflow has no times for it"):
        list(due_times(CronTriggerTimetable("0 0 30 2 *", timezone="UTC"), utc(2027, 1, 1), limit=1))


def test_a_dag_that_only_users_and_assets_start_needs_no_schedule():
    from airflow.sdk import Asset
    from airflow.serialization.encoders import coerce_to_core_timetable, ensure_serialized_asset

    asset = ensure_serialized_asset(Asset("an_asset"))
    assert not is_time_based(NullTimetable())
    assert not is_time_based(AssetTriggeredTimetable(asset))
    both = AssetOrTimeSchedule(timetable=CronTriggerTimetable("@daily", timezone="UTC"), assets=asset)
    assert is_time_based(coerce_to_core_timetable(both))
    with pytest.raises(NotExpressibleError, match="AssetOrTimeSchedule is neither"):
        spec(both)
