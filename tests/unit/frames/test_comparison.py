from __future__ import annotations

import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from temporal_airflow_nb.api.runs import compare
from temporal_airflow_nb.display.comparison_svg import render_comparison
from temporal_airflow_nb.frames import Comparison
from tests.support.snapshots import at, mapped, snapshot, task

SVG = "{http://www.w3.org/2000/svg}"
A = snapshot(
    task("extract", "success", 0, 2),
    *mapped("add", "success", "failed", begin=2, end=5),
    task("load", "failed", 5, 6, try_number=3),
    task("old", "success", 6, 9),
    state="failed",
    end=9,
)
B = snapshot(
    task("extract", "success", 0, 1),
    *mapped("add", "success", "success", "success", begin=2, end=5.5),
    task("load", "running", 5.5),
    task("g.new", "skipped", group="g"),
    run_id="manual__2026-01-02",
)


def said(picture):
    return [text.text for text in ET.fromstring(picture).iter(f"{SVG}text")]


def test_task_instances_stand_side_by_side():
    frame = Comparison(A, B).frame
    assert list(frame.columns) == [
        "task_id",
        "map_index",
        "state_a",
        "state_b",
        "duration_a",
        "duration_b",
        "difference",
        "ratio",
        "tries_a",
        "tries_b",
        "only_in",
    ]
    rows = frame.set_index(["task_id", "map_index"])
    extract = rows.loc["extract", -1]
    assert extract["difference"] == pd.Timedelta(seconds=-1)
    assert extract["ratio"] == 0.5
    load = rows.loc["load", -1]
    assert (load["state_a"], load["state_b"], load["tries_a"], load["tries_b"]) == ("failed", "running", 3, 1)
    assert pd.isna(load["difference"])
    assert pd.isna(load["ratio"])


def test_what_only_one_run_has_is_told_and_keeps_its_place():
    frame = Comparison(A, B).frame
    order = list(zip(frame["task_id"], frame["map_index"], strict=True))
    assert order == [
        ("extract", -1),
        ("add", 0),
        ("add", 1),
        ("add", 2),
        ("load", -1),
        ("g.new", -1),
        ("old", -1),
    ]
    only_in = frame["only_in"].where(frame["only_in"].notna(), "")
    assert list(only_in) == ["", "", "", "b", "", "b", "a"]
    assert pd.isna(frame["state_b"].iloc[-1])
    assert pd.isna(frame["tries_b"].iloc[-1])


def test_states_stay_categories_and_durations_timedeltas():
    for frame in (Comparison(A, B).frame, Comparison(snapshot(), snapshot()).frame):
        assert isinstance(frame["state_a"].dtype, pd.CategoricalDtype)
        assert frame["state_a"].dtype == frame["state_b"].dtype
        assert {str(frame[name].dtype) for name in ("duration_a", "duration_b", "difference")} == {
            "timedelta64[us]"
        }
        assert str(frame["map_index"].dtype) == "int64"


def test_the_picture_tells_the_same():
    words = said(render_comparison(A, B, now=at(8)))
    assert "add [2, 3]" in words
    assert "−1.00 s  ×0.50" in words
    assert "3.00 s 1 failed, 1 success" in words
    assert "2.50 s running" in words
    assert words.count("only in b") == words.count("only in a") == 1
    assert "g.new" in words


def test_of_many_tasks_those_that_differ_most_are_drawn():
    a = snapshot(*(task(f"t{number}", "success", 0, 1) for number in range(50)))
    b = snapshot(*(task(f"t{number}", "success", 0, 1 + number) for number in range(50)))
    words = said(render_comparison(a, b, rows=3))
    assert [word for word in words if word.startswith("t")] == ["t47", "t48", "t49"]
    assert "3 of 50 tasks, those with the largest differences" in words


def test_a_notebook_shows_the_picture_and_a_terminal_the_frame():
    comparison = Comparison(A, B)
    assert comparison._repr_svg_().startswith("<svg")
    assert comparison.svg in comparison._repr_html_()
    assert repr(comparison).startswith(
        "a: etl manual__2026-01-01 failed\nb: etl manual__2026-01-02 running\n"
    )
    assert "extract" in repr(comparison)


def test_only_runs_can_be_compared():
    with pytest.raises(TypeError, match="`a` must be a Run"):
        compare("manual__1", "manual__2")
