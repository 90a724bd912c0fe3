"""Texts of users with control and direction characters, in everything that shows a run."""

from __future__ import annotations

import io
import unicodedata

import pytest
from rich.console import Console

from temporal_airflow_nb.checks.finding import Finding
from temporal_airflow_nb.cli.run import print_line
from temporal_airflow_nb.display import html, notices, terminal, text
from temporal_airflow_nb.display.comparison_svg import render_comparison
from temporal_airflow_nb.display.failures import list_failures
from temporal_airflow_nb.display.gantt_svg import render_gantt
from temporal_airflow_nb.display.model import build_grid
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.health import print_table
from temporal_airflow_nb.live_grid.widget import RunWidget
from temporal_airflow_nb.logs.task_log import TaskLog, log_lines
from tests.support.snapshots import mapped, snapshot

HOSTILE = "A\x1b]0;title\x07\x1b[2J\x1b[1A\x9b31m\x00\x08\r\u202etxt\u2066\u2028\x85\ud800Z"
LOG = [
    {
        "timestamp": "2026-01-01T12:00:00Z",
        "level": HOSTILE,
        "event": HOSTILE,
        "field": HOSTILE,
        "error_detail": [{"exc_type": HOSTILE, "exc_value": HOSTILE, "exc_notes": [HOSTILE], "frames": []}],
    }
]


def run():
    tasks = mapped("cut", "failed", "success", label=HOSTILE)
    return {**snapshot(*tasks), "links": {HOSTILE: HOSTILE}}


def grid():
    error = {
        "type": HOSTILE,
        "value": HOSTILE,
        "more": [HOSTILE],
        "text": HOSTILE,
        "frames": [
            {"user": True, "filename": HOSTILE, "lineno": 1, "name": HOSTILE, "context": [[1, HOSTILE]]}
        ],
    }
    details = {("cut", 0): {"error": error, "log": [HOSTILE]}}
    return build_grid(run(), note=f"note {HOSTILE}", details=details)


def printed(print_to):
    output = io.StringIO()
    print_to(Console(file=output, width=200, color_system=None))
    return output.getvalue()


def in_the_page():
    messages = []
    widget = RunWidget(lambda: {"label": HOSTILE}, lambda _: {"log": [HOSTILE]})
    widget.send = messages.append
    widget.send_message({"tasks": [{"label": HOSTILE}]})
    widget._respond({"id": 1})
    state = widget.get_state(["state"])["state"]
    widget.close()
    return f"{messages[0]['tasks'][0]['label']} {messages[1]['data']['log'][0]} {state['label']}"


def tabled(capsys):
    print_table(["column"], [[HOSTILE]])
    return capsys.readouterr().out


OUTPUTS = {
    "text": lambda _: text.render_text(grid()),
    "terminal": lambda _: printed(lambda console: console.print(terminal.render_run(grid(), width=200))),
    "line": lambda _: printed(lambda console: print_line(console, HOSTILE)),
    "table": tabled,
    "html": lambda _: html.render(grid()),
    "card": lambda _: html.render_card(HOSTILE, HOSTILE),
    "gantt": lambda _: str(render_gantt(run())),
    "comparison": lambda _: str(render_comparison(run(), run())),
    "failures": lambda _: repr(list_failures(grid())),
    "failures as html": lambda _: list_failures(grid())._repr_html_(),
    "log": lambda _: str(TaskLog(LOG, 1)),
    "log in the page": lambda _: log_lines(LOG)[0]["text"],
    "page": lambda _: in_the_page(),
    "error": lambda _: str(InvalidInputError(f"There is no pool {HOSTILE}.", hint=HOSTILE)),
    "error in a notebook": lambda _: "".join(InvalidInputError(HOSTILE)._render_traceback_()),
    "finding": lambda _: notices.format_findings([Finding("warning", "code", HOSTILE, 1, HOSTILE)]),
    "finding as html": lambda _: notices.render_findings([Finding("warning", "code", HOSTILE, 1, HOSTILE)]),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_no_output_has_a_character_that_controls_it(name, capsys):
    shown = OUTPUTS[name](capsys)
    shown.encode()
    controls = {
        character
        for character in shown
        if (unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") and character not in "\t\n")
        or character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    }
    assert controls == set()
    if name != "comparison":
        assert "\\u202etxt" in shown, "the rest is shown"


def test_an_error_keeps_its_values_as_they_are():
    assert InvalidInputError(HOSTILE).message == HOSTILE
    assert TaskLog(LOG, 1).lines == LOG
