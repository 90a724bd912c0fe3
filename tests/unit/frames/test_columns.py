from __future__ import annotations

import pandas as pd
import pytest

from temporal_airflow_nb.frames import tasks_frame, xcoms_frame
from tests.support.snapshots import at, mapped, snapshot, task


def test_tasks_have_the_documented_columns_and_types():
    frame = tasks_frame(
        snapshot(task("extract", "success", 0.5, 2.0, operator="PythonOperator"), task("load"))
    )
    assert list(frame.columns) == [
        "task_id",
        "map_index",
        "state",
        "try_number",
        "max_tries",
        "operator",
        "start_date",
        "end_date",
        "duration",
        "queued_dttm",
        "pool",
        "label",
        "group",
    ]
    extract, load = frame.to_dict("records")
    assert extract["start_date"] == pd.Timestamp(at(0.5))
    assert str(extract["start_date"].tz) == "UTC"
    assert extract["duration"] == pd.Timedelta(seconds=1.5)
    assert (extract["state"], extract["try_number"], extract["operator"]) == ("success", 1, "PythonOperator")
    assert pd.isna(load["state"])
    assert pd.isna(load["start_date"])
    assert pd.isna(load["duration"])


def test_states_are_a_category_in_airflows_order():
    from airflow.utils.state import TaskInstanceState

    frame = tasks_frame(snapshot(*mapped("add", "success", "failed", "queued")))
    assert list(frame["state"].cat.categories) == [state.value for state in TaskInstanceState]
    assert list(frame["state"].sort_values()) == ["queued", "success", "failed"]


@pytest.mark.parametrize(
    ("empty", "full"),
    [
        (tasks_frame(snapshot()), tasks_frame(snapshot(task("a", "success", 0, 1, label="x", group="g")))),
        (
            xcoms_frame([]),
            xcoms_frame(
                [{"task_id": "a", "map_index": -1, "key": "k", "value": 1, "timestamp": at(0).isoformat()}]
            ),
        ),
    ],
    ids=["tasks", "xcoms"],
)
def test_an_empty_frame_has_the_columns_and_types_of_a_full_one(empty, full):
    assert len(empty) == 0
    assert list(empty.columns) == list(full.columns)
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()


@pytest.mark.parametrize(
    "values", [[None, 1, "text", [1, [2]], {"a": {"b": 1}}, True], [[1, 2], [3, 4]], ["one", "two"], []]
)
def test_xcom_values_keep_their_types(values):
    frame = xcoms_frame(
        {"task_id": "a", "map_index": i, "key": "k", "value": value, "timestamp": at(i).isoformat()}
        for i, value in enumerate(values)
    )
    assert list(frame["value"]) == values
    assert frame["value"].dtype == object
    assert frame["timestamp"].is_monotonic_increasing


def test_whole_and_fractional_seconds_mix():
    frame = tasks_frame(snapshot(task("a", "success", 0, 1), task("b", "success", 0.25, 1.000001)))
    assert list(frame["end_date"]) == [pd.Timestamp(at(1)), pd.Timestamp(at(1.000001))]


def test_a_hundred_thousand_task_instances():
    many = snapshot(*mapped("add", *["success"] * 100_000))
    assert len(tasks_frame(many)) == 100_000
