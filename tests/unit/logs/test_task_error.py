from __future__ import annotations

import pytest

from temporal_airflow_nb.logs import task_error
from tests.unit.logs.test_task_log import LINES, error

PREPARING = [
    {"event": "::group::Pre Execute", "level": "info"},
    {"event": "DAG bundles loaded", "level": "info"},
    {"event": "no template", "level": "error"},
    {"event": "::endgroup::", "level": "info"},
]


def test_the_end_of_a_log_omits_the_exception_and_airflows_preparations():
    records = [*PREPARING, {"event": "read", "level": "info"}, LINES[-1]]
    why = task_error.find_failure(records)
    assert why is LINES[-1]
    words = [line.split()[-1] for line in task_error.last_lines(records, why, 1, 20)]
    assert words == ["template", "read"]


def test_notes_causes_and_group_members_have_a_line_each():
    group = error("ExceptionGroup", "two", exc_notes=["ask Ada"], exceptions=[[error("KeyError", "1")]])
    record = {"error_detail": [group, error("OSError", "gone", is_cause=True), error("ValueError", "x")]}
    described = task_error.describe_failure(record)
    assert (described["type"], described["value"]) == ("ExceptionGroup", "two")
    assert described["more"] == [
        "ask Ada",
        "| KeyError: 1",
        "from OSError: gone",
        "while handling ValueError: x",
    ]


@pytest.mark.parametrize(
    ("record", "described"),
    [
        ({"event": "Task exited", "exit_code": 3}, ("Task exited", "exit code 3")),
        (
            {"event": "Process terminated by signal. Likely OOM.", "signal": -9, "signal_name": "SIGKILL"},
            ("Process terminated by signal", "SIGKILL. Likely OOM."),
        ),
    ],
)
def test_the_end_of_a_process_without_an_exception_is_described(record, described):
    why = task_error.find_failure([{"event": "read"}, record])
    assert why is record
    shown = task_error.describe_failure(why)
    assert (shown["type"], shown["value"]) == described
