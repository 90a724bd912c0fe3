from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from temporal_airflow_nb.display import html, text
from temporal_airflow_nb.display.failures import list_failures
from temporal_airflow_nb.display.model import build_grid, format_duration
from temporal_airflow_nb.display.states import NO_STATUS, PRIORITY, STATE_STYLES, TASK_STATES, combine_states
from temporal_airflow_nb.display.terminal import render_run
from tests.support.snapshots import at, mapped, snapshot, task

VOID = {"br", "hr", "img", "input", "meta", "link"}


def in_terminal(shown, width=80, height=24):
    console = Console(width=width, height=height, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(render_run(shown, width=width, height=height))
    return capture.get().rstrip("\n").split("\n")


class Page(HTMLParser):
    """Checks that every tag is closed, and keeps the text and the attributes."""

    def __init__(self, source):
        super().__init__()
        self.open, self.attributes, self.said, self.tags = [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.said.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.said).split())


@pytest.fixture
def etl():
    return snapshot(
        task("extract", "success", 0.0, 1.0),
        *mapped("add", *["success"] * 37, *["running"] * 13, end=1.5),
        task("quality.nulls", "up_for_retry", 1.0, 1.2, group="quality", max_tries=2),
        task("quality.deep.refs", "deferred", 1.0, group="quality.deep"),
        task("load"),
    )


def test_plain_text_has_one_line_per_task(etl):
    assert text.render_text(build_grid(etl, now=at(2)), width=80).splitlines() == [
        "▸ etl · manual__2026-01-01 · running · 2.00 s",
        "✓ extract   success                             1.00 s",
        "▸ add [50]  13 running, 37 success              1.00 s",
        "  quality",
        "↻   nulls   up for retry            try 1 of 3  0.20 s",
        "    deep",
        "‖     refs  deferred                            1.00 s",
        "· load      no status",
        "temporal: http://127.0.0.1:8233/namespaces/default/workflows/airflow-etl",
    ]


def test_members_of_a_group_follow_its_first_member():
    shown = build_grid(
        snapshot(task("g.a", group="g"), task("x"), task("g.b", group="g"), task("g.h.c", group="g.h"))
    )
    assert [line if isinstance(line, str) else line.name for _, line in shown.lines()] == [
        "g",
        "a",
        "b",
        "h",
        "c",
        "x",
    ]
    assert [depth for depth, _ in shown.lines()] == [0, 1, 1, 1, 2, 0]


def test_a_task_id_without_its_groups_prefix_stays_whole():
    (row,) = build_grid(snapshot(task("free", group="g"))).rows
    assert (row.name, row.group) == ("free", "g")


@pytest.mark.parametrize(
    ("state", "tries", "shown"),
    [
        ("success", (1, 0), "1"),
        ("success", (2, 2), "2 of 3"),
        (None, (0, 3), ""),
        ("success", (4, 2), "4 of 4"),
    ],
)
def test_tries_show_the_allowed_number(state, tries, shown):
    try_number, max_tries = tries
    (row,) = build_grid(snapshot(task("a", state, 0, 1, try_number=try_number, max_tries=max_tries))).rows
    assert row.tries == shown


def test_the_duration_of_a_running_task_ends_now():
    shown = build_grid(snapshot(task("a", "running", 1.0)), now=at(3.5))
    assert shown.seconds_of(shown.rows[0]) == 2.5
    assert shown.span(shown.rows[0]) == pytest.approx((1 / 3.5, 1 / 3.5, 1.0))


@pytest.mark.parametrize("seconds", [-1.0, 1e9])
def test_a_wrong_clock_draws_no_bar_outside_the_timeline(seconds):
    shown = build_grid(snapshot(task("a", "success", seconds, seconds + 1), end=2, state="success"))
    assert all(0 <= part <= 1 for part in shown.span(shown.rows[0]))


def test_several_states_are_combined_as_in_airflow():
    from airflow.api_fastapi.common.parameters import state_priority

    assert tuple(NO_STATUS if state is None else state.value for state in state_priority) == PRIORITY
    assert combine_states({"success": 3, "failed": 1}) == "failed"
    assert combine_states({}) == NO_STATUS


def test_every_state_of_airflow_has_a_colour_and_a_unique_sign():
    from airflow.utils.state import TaskInstanceState

    assert tuple(state.value for state in TaskInstanceState) == TASK_STATES
    assert set(STATE_STYLES) == {*TASK_STATES, NO_STATUS}
    assert len({shown.sign for shown in STATE_STYLES.values()}) == len(STATE_STYLES)


def test_a_state_of_a_later_airflow_is_shown_by_its_name():
    later = snapshot(task("a", "hibernating", 0.0))
    assert "hibernating" in text.render_text(build_grid(later))
    assert "hibernating" in Page(html.render(build_grid(later))).text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.00 s"),
        (9.994, "9.99 s"),
        (9.999, "10.0 s"),
        (59.97, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (None, ""),
    ],
)
def test_durations_have_no_impossible_values(seconds, shown):
    assert format_duration(seconds) == shown


def chain(n):
    """A long chain with something going on in its middle."""
    states = ["success"] * (n // 2) + ["failed", "running"] + [None] * (n - n // 2 - 2)
    return snapshot(
        *(
            task(
                f"step_{i:04d}",
                state,
                None if state is None else i / 10,
                i / 10 + 0.1 if state == "success" else None,
            )
            for i, state in enumerate(states)
        )
    )


def test_a_thousand_tasks_fit_a_terminal():
    lines = in_terminal(build_grid(chain(1000), now=at(60)), width=80, height=24)
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)
    shown = "\n".join(lines)
    assert "500 success" in shown
    assert "✗ step_0500" in shown
    assert "▸ step_0501" in shown
    assert "498 no status" in shown


def test_a_thousand_tasks_of_every_state_in_groups_still_fit():
    tasks = [
        task(f"g{i % 50}.t{i}", [*TASK_STATES, None][i % 14], 0.0, 1.0, group=f"g{i % 50}")
        for i in range(1000)
    ]
    lines = in_terminal(build_grid(snapshot(*tasks), now=at(2)), height=24)
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)
    shortened = build_grid(snapshot(*tasks)).shortened(20)
    assert sum(len(row.instances) for row in shortened.rows) == 1000


def test_long_names_keep_both_ends_at_80_columns():
    name = "load_" + "x" * 120 + "_eu_west_1"
    lines = in_terminal(
        build_grid(snapshot(task(name, "failed", 0.0, 1.0, try_number=3, max_tries=2)), now=at(2))
    )
    assert all(len(line) <= 80 for line in lines)
    assert re.search(r"✗ load_x+…x*_eu_west_1 +failed +try 3 of 3 +1\.00 s", "\n".join(lines))


def test_a_wide_terminal_has_a_timeline():
    narrow = "".join(in_terminal(build_grid(chain(5), now=at(1)), width=80))
    wide = "".join(in_terminal(build_grid(chain(5), now=at(1)), width=120))
    assert "━" not in narrow
    assert "━" in wide


def test_html_is_self_contained(etl):
    source = html.render(build_grid(etl, now=at(2)))
    page = Page(source)
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "@import" not in source
    assert "url(" not in source
    for said in (
        "etl",
        "manual__2026-01-01",
        "2.00 s",
        "13 running",
        "37 success",
        "1 of 3",
        "quality",
        "deferred",
    ):
        assert said in page.text
    assert ("href", "http://127.0.0.1:8233/namespaces/default/workflows/airflow-etl") in page.attributes


def test_html_is_a_table_for_screen_readers(etl):
    page = Page(html.render(build_grid(etl, now=at(2))))
    assert page.tags.count("caption") == 1
    assert [value for name, value in page.attributes if name == "scope"].count("col") == 5
    assert "row" in [value for name, value in page.attributes if name == "scope"]
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert "Run manual__2026-01-01 of DAG etl: running" in labels
    assert "1 up for retry, 13 running, 1 deferred, 1 no status, 38 success" in labels
    assert "began 1.00 s into the run, took 0.20 s" in labels


def test_html_escapes_names():
    nasty = '<img src=x onerror="alert(1)">&'
    shown = snapshot(
        task(nasty, "failed", 0.0, 1.0, group=nasty, operator=nasty),
        *mapped("m", "success", label=nasty),
        dag_id=nasty,
        run_id=nasty,
        links={"temporal": "javascript:alert(1)", nasty: 'http://x/"><b>'},
    )
    page = Page(html.render(build_grid(shown, note=nasty)))
    assert "img" not in page.tags
    assert page.tags.count("b") == 2
    assert "javascript:alert(1)" not in [value for _, value in page.attributes]
    assert nasty in page.text


def failed_run():
    return snapshot(
        task("load", "failed", 0.0, 1.0, try_number=3, max_tries=2),
        *mapped("add", "success", "failed", "failed", "failed", "failed", "failed"),
        task("report", "upstream_failed"),
        state="failed",
        end=3,
    )


DETAILS = {
    "task_id": "load",
    "state": "failed",
    "error": {
        "type": "ValueError",
        "value": "<b>not a date</b>",
        "text": "Traceback (most recent call last):\n  …\nValueError: <b>not a date</b>",
        "frames": [
            {"filename": "/airflow/task.py", "lineno": 9, "name": "run", "line": "call()", "user": False},
            {
                "filename": "/dags/etl.py",
                "lineno": 18,
                "name": "load",
                "line": "    return parse(row)",
                "cell": "In [7], line 8",
                "user": True,
                "context": [[number, f"source of {number}"] for number in range(14, 23)],
            },
            {"filename": "/lib/dateutil.py", "lineno": 3, "name": "parse", "line": "raise", "user": False},
        ],
    },
    "log": [f"line {number}" for number in range(20)],
}


def test_html_shows_failed_tasks_and_what_to_call():
    said = Page(html.render(build_grid(failed_run()))).text
    assert "✗ load failed at try 3 of 3, after 1.00 s" in said
    assert 'Next: run.logs("load") run.clear("load", downstream=True)' in said
    assert 'run.logs("add", map_index=1)' in said
    assert "… and 3 more" in said
    assert 'run.logs("report"' not in said


def test_a_failure_shows_the_users_code_the_end_of_the_log_and_what_to_call():
    shown = build_grid(failed_run(), details={("load", -1): DETAILS})
    said = Page(html.render(shown)).text
    assert "✗ load failed at try 3 of 3, after 1.00 s: ValueError: <b>not a date</b>" in said
    assert "In [7], line 8, in load" in said
    assert "7 source of 17 ▸ 8 source of 18 9 source of 19" in said
    assert "source of 14" not in said
    assert "line 10 line 11" in said
    assert "line 9 " not in said
    plain = text.render_text(shown)
    assert "    ValueError: <b>not a date</b>\n    In [7], line 8, in load\n" in plain
    assert "\n    ▸  8 source of 18\n" in plain
    assert '    Next: run.logs("load")   run.clear("load", downstream=True)' in plain


def test_failures_are_objects():
    found = list_failures(build_grid(failed_run(), details={("load", -1): DETAILS}))
    assert len(found) == 3
    assert found[0].exception == "ValueError: <b>not a date</b>"
    assert found[0].commands[0] == 'run.logs("load")'
    assert [line.number for line in found[0].source if line.failing] == [8]
    assert found[1].name == "add[1]"
    assert repr(found).splitlines()[0] == "✗ load failed at try 3 of 3, after 1.00 s"
    assert Page(found._repr_html_()).tags.count("summary") == 4
    assert {type(each._repr_html_()) for each in (found, found[1])} == {str}
    assert Page(found[1]._repr_html_()).tags.count("summary") == 1
    assert repr(list_failures(build_grid(snapshot(task("a", "success", 0, 1))))) == "Nothing failed."


def test_the_first_failures_are_of_different_tasks():
    run = snapshot(*mapped("add", "failed", "failed", "failed"), task("load", "failed", 0, 1))
    assert [failed.name for failed in list_failures(build_grid(run))] == ["add[0]", "load", "add[1]"]
    assert "… and 1 more in run.failures" in html.render(build_grid(run))
    assert "more in run" not in list_failures(build_grid(run), limit=4)._repr_html_()


def test_a_message_is_shown_line_by_line_with_notes_and_causes_and_without_colours():
    error = {
        "type": "OSError",
        "value": "\x1b[31mdown\x1b[0m\n  at 9",
        "more": ["ask Ada", "from KeyError: 'a'"],
    }
    shown = build_grid(failed_run(), details={("load", -1): {"error": error, "log": ["\x1b[1mbye\x1b[0m"]}})
    assert text.render_text(shown).split("\n✗ load failed")[1].splitlines()[1:7] == [
        "    OSError: down",
        "      at 9",
        "      ask Ada",
        "      from KeyError: 'a'",
        "    The end of its log:",
        "      bye",
    ]
    page = html.render(shown)
    assert "<b>OSError: down</b>" in page
    assert ">  at 9\nask Ada\nfrom KeyError: &#x27;a&#x27;</pre>" in page


def test_a_failure_without_a_frame_of_the_user_shows_no_code():
    frames = [{"filename": "/lib/bash.py", "lineno": 9, "name": "execute", "user": False}]
    details = {"error": {"type": "E", "value": "exit code 5", "frames": frames}}
    assert list_failures(build_grid(failed_run(), details={("load", -1): details}))[0].place == ""


def test_html_of_many_mapped_instances_is_small():
    few = html.render(build_grid(snapshot(*mapped("add", *["success"] * 119, "running"))))
    many = html.render(build_grid(snapshot(*mapped("add", *["success"] * 5000, "failed"))))
    assert "✓" * 119 in few
    assert "add[0] to add[118] · success" in few
    assert len(many) < 20_000
    assert "1 failed" in Page(many).text


def test_html_of_a_thousand_tasks_of_every_state_in_groups_is_small():
    tasks = [
        task(f"g{i % 50}.t{i}", [*TASK_STATES, None][i % 14], 0.0, 1.0, group=f"g{i % 50}")
        for i in range(1000)
    ]
    assert len(html.render(build_grid(snapshot(*tasks), now=at(2)))) < 200_000
    assert len(html.render(build_grid(chain(1000), now=at(60)))) < 200_000


def test_html_draws_waiting_and_earlier_tries():
    tried = task("a", "success", 2.0, 4.0, try_number=2, max_tries=1)
    tried["tries"] = [[1, "failed", at(0.5).isoformat(), at(0.5).isoformat(), at(1).isoformat()]]
    source = html.render(build_grid(snapshot({**tried, "queued_dttm": at(1.5).isoformat()}, end=4)))
    timeline = source[source.rindex("<svg") :]
    assert re.findall(r'<rect x="(\d+)" .*? width="(\d+)" .*? fill="(#\w+)"', timeline) == [
        ("375", "125", "#8b949e"),
        ("125", "125", STATE_STYLES["failed"].color),
        ("500", "500", STATE_STYLES["success"].color),
    ]


def test_a_run_without_tasks_yet_is_shown():
    queued = snapshot(state="queued", start_date=None)
    assert "queued" in text.render_text(build_grid(queued))
    assert "queued" in Page(html.render(build_grid(queued))).text
    assert "queued" in "".join(in_terminal(build_grid(queued)))


def test_a_note_is_shown_everywhere(etl):
    shown = build_grid(etl, now=at(2), note="connection lost")
    assert "connection lost" in text.render_text(shown)
    assert "connection lost" in Page(html.render(shown)).text
    assert "connection lost" in "".join(in_terminal(shown))


def test_a_card_shows_progress():
    assert Page(html.render_card("Starting the stack", "3.0 s")).text == "▸ Starting the stack 3.0 s"
