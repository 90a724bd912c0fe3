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


def test_the_end_of_a_log_has_neither_the_exception_nor_airflows_preparations():
    records = [*PREPARING, {"event": "read", "level": "info"}, LINES[-1]]
    why = task_error.find_failure(records)
    assert why is LINES[-1]
    said = [line.split()[-1] for line in task_error.last_lines(records, why, 1, 20)]
    assert said == ["template", "read"]


def test_notes_causes_and_members_of_a_group_are_told_in_a_line_each():
    group = error("ExceptionGroup", "two", exc_notes=["ask Ada"], exceptions=[[error("KeyError", "1")]])
    record = {"error_detail": [group, error("OSError", "gone", is_cause=True), error("ValueError", "x")]}
    told = task_error.describe_failure(record)
    assert (told["type"], told["value"]) == ("ExceptionGroup", "two")
    assert told["more"] == ["ask Ada", "| KeyError: 1", "from OSError: gone", "while handling ValueError: x"]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"event": "Task exited", "exit_code": 3}, ("Task exited", "exit code 3")),
        (
            {"event": "Process terminated by signal. Likely OOM.", "signal": -9, "signal_name": "SIGKILL"},
            ("Process terminated by signal", "SIGKILL. Likely OOM."),
        ),
    ],
)
def test_a_process_that_ended_without_an_exception_says_how(record, told):
    why = task_error.find_failure([{"event": "read"}, record])
    assert why is record
    shown = task_error.describe_failure(why)
    assert (shown["type"], shown["value"]) == told
