from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from temporal_airflow_nb.display.gantt_svg import render_gantt
from temporal_airflow_nb.display.states import STATE_STYLES
from temporal_airflow_nb.display.svg import ticks
from tests.support.snapshots import at, mapped, snapshot, task

SVG = "{http://www.w3.org/2000/svg}"


def chart(*tasks, now=10, **options):
    return ET.fromstring(render_gantt(snapshot(*tasks), now=at(now), **options))


def lanes(picture):
    """Name → the rectangles of each lane, as (begin, end, fill, opacity, what a pointer is told)."""
    found = {}
    for group in picture.iter(f"{SVG}g"):
        name = [text.text for text in group.findall(f"{SVG}text")][
            1 if group.find(f"{SVG}title") is not None else 0
        ]
        found[name] = [
            (
                float(r.get("x")),
                float(r.get("x")) + float(r.get("width")),
                r.get("fill"),
                r.get("fill-opacity"),
                r.findtext(f"{SVG}title"),
            )
            for r in group.findall(f"{SVG}rect")
        ]
    return found


def seconds_of(picture):
    """Return what turns a place into seconds on the axis, by two of its ticks."""
    places = {
        float(text.text.removesuffix(" s")): float(text.get("x"))
        for text in picture.findall(f"{SVG}text")
        if text.get("text-anchor") == "middle"
    }
    (a, x), (b, y) = list(places.items())[:2]
    return lambda place: a + (place - x) * (b - a) / (y - x)


def test_tries_are_drawn_at_their_times():
    picture = chart(
        task("extract", "success", 2.0, 5.0, queued_dttm=at(0.5).isoformat()),
        task("load", "running", 6.0, try_number=1),
        task("report"),
    )
    seconds = seconds_of(picture)
    (wait, ran), (running,), nothing = lanes(picture).values()
    assert [seconds(place) for place in wait[:2]] == pytest.approx([0.5, 2.0], abs=0.05)
    assert [seconds(place) for place in ran[:2]] == pytest.approx([2.0, 5.0], abs=0.05)
    assert ran[2:] == (STATE_STYLES["success"].color, None, "try 1: success, 3.00 s")
    assert [seconds(place) for place in running[:2]] == pytest.approx([6.0, 10.0], abs=0.05)
    assert nothing == []


def test_former_tries_are_drawn_fainter():
    tries = [[1, "failed", at(0).isoformat(), at(1).isoformat(), at(2).isoformat()]]
    picture = chart(task("flaky", "success", 4.0, 6.0, try_number=2, max_tries=2, tries=tries))
    _, first, second = lanes(picture)["flaky"]
    assert first[2:] == (STATE_STYLES["failed"].color, "0.45", "try 1: failed, 1.00 s")
    assert second[2:] == (STATE_STYLES["success"].color, None, "try 2: success, 2.00 s")
    assert first[1] < second[0]


def test_a_few_mapped_instances_have_a_lane_each():
    picture = chart(
        *mapped("add", "success", "failed"), task("named", "success", 0, 1, map_index=0, label="north")
    )
    assert list(lanes(picture)) == ["add [0]", "add [1]", "named [north]"]


def test_many_mapped_instances_share_a_lane_divided_by_state():
    picture = chart(*mapped("add", *["success"] * 900, *["failed"] * 100))
    ((name, bars),) = lanes(picture).items()
    assert name == "add [1000]"
    assert [bar[4] for bar in bars] == ["success", "failed"]


def test_the_number_of_rows_is_limited():
    picture = chart(*(task(f"t{number}", "success", 0, 1) for number in range(300)), max_rows=20)
    assert len(lanes(picture)) <= 20
    assert "300 success" in picture.findtext(f"{SVG}desc")


def test_groups_are_named_once():
    picture = chart(task("g.a", "success", 0, 1, group="g"), task("g.h.b", "success", 1, 2, group="g.h"))
    assert list(lanes(picture)) == ["g", "a", "h", "b"]


def test_the_picture_describes_itself_to_screen_readers():
    picture = chart(task("extract", "failed", 0.0, 5.0))
    assert picture.get("role") == "img"
    assert picture.findtext(f"{SVG}title") == "Gantt chart of etl, run manual__2026-01-01: running"
    assert picture.get("aria-label") == f"{picture.findtext(f'{SVG}title')}. {picture.findtext(f'{SVG}desc')}"
    assert "extract · failed · 5.00 s · began at 0.00 s" in [t.text for t in picture.iter(f"{SVG}title")]
    assert "✗" in [t.text for t in picture.iter(f"{SVG}text")]


def test_the_picture_is_self_contained():
    source = render_gantt(snapshot(task("a<script>", "success", 0, 1), task("b", "running", 1)), now=at(3))
    assert "<script" not in source
    assert "<style" not in source
    assert "href" not in source
    ET.fromstring(source)


def test_a_run_without_tasks_or_times_is_drawn():
    assert "no tasks" in render_gantt({"dag_id": "etl", "run_id": "r", "state": "queued", "tasks": []})


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.02, ["0 s", "0.005 s", "0.01 s", "0.015 s", "0.02 s"]),
        (4, ["0 s", "1 s", "2 s", "3 s", "4 s"]),
        (100, ["0 s", "30 s", "1 min 00 s", "1 min 30 s"]),
        (5400, ["0 s", "30 min", "1 h", "1 h 30 min"]),
        (86400 * 9, ["0 s", "3 d", "6 d", "9 d"]),
    ],
)
def test_ticks_are_at_round_times(seconds, said):
    assert [words for _, words in ticks(seconds, 4)] == said
