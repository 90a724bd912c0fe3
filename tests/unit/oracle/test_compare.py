"""Tests of the comparison of two results."""

from __future__ import annotations

import copy
from datetime import datetime, timezone

import pytest

from tests.compatibility.oracle.catalog import CASES, Case, Choice, rename_choices
from tests.compatibility.oracle.compare import compare
from tests.compatibility.oracle.normalise import Normaliser

RUN = {
    "run_id": "manual__1",
    "logical_date": "2024-03-05 06:07:08.901234",
    "data_interval_start": "2024-03-04 00:00:00.000000",
    "data_interval_end": "2024-03-05 00:00:00.000000",
    "queued_at": datetime.now(tz=timezone.utc).isoformat(),
    "start_date": None,
}


@pytest.fixture
def clean():
    return Normaliser(RUN, {"/home/me/airflow": "airflow_home"})


@pytest.fixture
def result():
    return CASES["retries"].recorded()["retry_exhausted"]


def test_equal_results_do_not_differ(result):
    assert compare(result, copy.deepcopy(result)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["state"], "success"),
        (["tasks", "never", "try_number"], 2),
        (["tasks", "blocked", "state"], "skipped"),
        (["xcoms", "never", "last_try"], 3.0),
        (["effects"], []),
        (["xcoms", "new"], {"return_value": None}),
    ],
)
def test_every_difference_is_named(result, path, value):
    embedded = copy.deepcopy(result)
    place = embedded
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    (difference,) = compare(result, embedded)
    assert difference.startswith(" / ".join(path))
    assert repr(value) in difference


def test_a_missing_task_is_a_difference(result):
    embedded = copy.deepcopy(result)
    del embedded["tasks"]["blocked"]
    assert len(compare(result, embedded)) == 1


def test_dates_of_a_run_are_replaced_by_their_names(clean):
    assert clean("at 2024-03-05T06:07:08.901234+00:00") == "at <logical_date>"
    assert clean("2024-03-05 00:00:00+00:00") == "<data_interval_end, spaced>"
    assert clean("20240304") == "<data_interval_start's day, no dashes>"


def test_other_times_on_the_day_of_a_run_are_not_its_dates(clean):
    assert clean("manual__2024-03-05T11:12:13+00:00") == "manual__2024-03-05T11:12:13+00:00"


def test_dates_of_other_runs_are_kept(clean):
    assert clean(["2020-02-03T04:05:06+00:00", 1580702706.0]) == ["2020-02-03T04:05:06+00:00", 1580702706.0]


def test_times_of_the_run_are_hidden(clean):
    moment = datetime.now(tz=timezone.utc)
    assert clean({"at": moment.isoformat(), "epoch": moment.timestamp()}) == {"at": "<now>", "epoch": "<now>"}


def test_paths_and_ids_are_hidden(clean):
    text = "/home/me/airflow/dags manual__1 01a205ac-0561-776c-86f0-6c934c6ff4b6 <object at 0x7f0011223344>"
    assert clean(text) == "<airflow_home>/dags <run_id> <uuid> <object at <address>>"


def test_a_random_choice_is_renamed_consistently():
    case = Case("any", choices=[Choice("pick", "abc", ["task_{}", "after_{}"])])
    picked_c = {
        "xcoms": {"pick": {"skipmixin_key": {"followed": ["task_c"]}}},
        "tasks": {"task_a": "skipped", "task_b": "skipped", "task_c": "success", "after_c": "success"},
    }
    assert rename_choices(case, picked_c, "dag") == {
        "xcoms": {"pick": {"skipmixin_key": {"followed": ["task_a"]}}},
        "tasks": {"task_c": "skipped", "task_b": "skipped", "task_a": "success", "after_a": "success"},
    }
