from __future__ import annotations

import pickle

from temporal_airflow_nb.logs.task_log import TaskLog

AIRFLOW = "/venv/lib/python3.11/site-packages/airflow/sdk/execution_time/task_runner.py"


def error(kind, value, *frames, **facts):
    return {
        "exc_type": kind,
        "exc_value": value,
        "frames": [{"filename": file, "lineno": line, "name": name} for file, line, name in frames],
        **facts,
    }


LINES = [
    {"timestamp": None, "event": "::group::Log message source details"},
    {"timestamp": None, "event": "/logs/attempt=1.log"},
    {"timestamp": None, "event": "::endgroup::"},
    {"timestamp": "2026-01-01T12:00:00.123456Z", "event": "::group::Pre Execute", "level": "info"},
    {
        "timestamp": "2026-01-01T12:00:00.200000Z",
        "event": "read",
        "level": "info",
        "rows": 3,
        "task_id": "extract",
        "lineno": 7,
    },
    {"timestamp": "2026-01-01T12:00:00.250000Z", "event": "::endgroup::", "level": "info"},
    {
        "timestamp": "2026-01-01T12:00:00.300000Z",
        "event": "Task failed with exception",
        "level": "error",
        "error_detail": [
            error(
                "ValueError",
                "bad row",
                (AIRFLOW, 1, "run"),
                (AIRFLOW, 2, "execute"),
                ("dag.py", 9, "extract"),
            ),
            error("KeyError", "'a'", ("lib.py", 3, "row"), is_cause=True),
        ],
    },
]


def test_a_log_has_one_line_per_record():
    log = TaskLog(LINES, 2)
    assert log == (
        "12:00:00.200  INFO     read  rows=3\n"
        "12:00:00.300  ERROR    Task failed with exception\n"
        "Traceback (most recent call last):\n"
        '  File "lib.py", line 3, in row\n'
        "KeyError: 'a'\n"
        "The above exception was the direct cause of the following exception:\n"
        "Traceback (most recent call last):\n"
        "  … 2 frames in Airflow\n"
        '  File "dag.py", line 9, in extract\n'
        "ValueError: bad row"
    )
    assert repr(log) == str(log)


def test_a_log_keeps_all_records():
    log = TaskLog(iter(LINES), 2)
    assert log.lines == LINES
    assert log.try_number == 2
    again = pickle.loads(pickle.dumps(log))
    assert (again, again.lines, again.try_number) == (log, LINES, 2)


def test_an_empty_log_says_so():
    assert repr(TaskLog([], 1)) == "(try 1 logged nothing)"
    assert TaskLog([], 1) == ""


def test_a_long_value_is_cut():
    (line,) = TaskLog([{"event": "e", "level": "info", "ti": "x" * 500}], 1).splitlines()
    assert len(line) < 100


def test_frames_of_a_cells_file_are_shown_as_the_cells(tmp_path):
    path = tmp_path / "etl.py"
    path.write_text("# %% In [7]: %%temporal_dag\ndef f():\n    1 / 0\n")
    path.touch()
    failed = {
        "event": "failed",
        "error_detail": [error("ZeroDivisionError", "division by zero", (str(path), 3, "f"))],
    }
    assert "  Cell In [7], line 3, in f" in TaskLog([{**failed, "timestamp": "2999-01-01T00:00:00Z"}], 1)
    assert f'  File "{path}", line 3, in f' in TaskLog([{**failed, "timestamp": "2000-01-01T00:00:00Z"}], 1)
