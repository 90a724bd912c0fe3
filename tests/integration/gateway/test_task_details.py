"""A task in detail, and its log as it grows, through the gateway."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from temporal_airflow_nb.errors import DagNotFoundError, RunNotFoundError
from temporal_airflow_nb.live_grid import page_requests
from temporal_airflow_nb.live_grid.poller import GridPoller
from tests.support.waiting import until

DETAILED = """\
# %% In [7]: %%temporal_dag
import time
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import Variable, dag, get_current_context, task

import detailed_helper

# %% In [3], line 2
def parse(text):
    if not text.isdigit():
        raise ValueError(f"not a number: {text}")
    return int(text)

# %% In [7], line 12
@dag(schedule=None, params={"folder": ""})
def detailed():
    @task(retries=3, retry_delay=timedelta(hours=1))
    def reads():
        print("about to read")
        try:
            parse("xyz")
        except ValueError as error:
            raise RuntimeError("can't be read") from error

    @task
    def helped():
        detailed_helper.divide(1, 0)

    @task
    def many(item):
        get_current_context()["ti"].xcom_push("note", {"long": "x" * 5_000})
        return f"item {item}"

    @task
    def speaks():
        folder = Path(get_current_context()["params"]["folder"])
        for number in range(3):
            print("line", number)
            while not (folder / str(number)).exists():
                time.sleep(0.02)

    @task
    def writes():
        for number in range(15_000):
            print("number", number)

    reads()
    helped()
    writes()
    many.expand(item=[1, 2])
    speaks()
    PythonOperator(
        task_id="rendered",
        python_callable=lambda **_: None,
        op_kwargs={"password": "hunter2", "day": "{{ run_id }}"},
    )

detailed()
"""
HELPER = """\
def divide(a, b):
    return a / b
"""


class Detailed:
    """A run, and the details of its tasks."""

    def __init__(self, stack, run, folder):
        self.stack = stack
        self.run = run
        self.folder = folder

    def task(self, task_id, **more):
        return self.stack.client.get_task(**self.which(task_id, **more))

    def tail(self, task_id, after=0, **more):
        return self.stack.client.tail_log(**self.which(task_id, **more), after=after)

    def which(self, task_id, **more):
        return {"dag_id": self.run.dag_id, "run_id": self.run.run_id, "task_id": task_id, **more}

    def ended(self, task_id, map_index=-1):
        """Wait until a task has ended or waits for its next try; return its details."""
        waited_for = ("success", "failed", "up_for_retry")
        until(lambda: self.task(task_id, map_index=map_index)["state"] in waited_for)
        return self.task(task_id, map_index=map_index)


@pytest.fixture(scope="module")
def detailed(stack, tmp_path_factory):
    """A run with a task that logs until a file appears."""
    folder = tmp_path_factory.mktemp("detailed")
    path = folder / "detailed.py"
    path.write_text(DETAILED)
    (folder / "detailed_helper.py").write_text(HELPER)
    run = stack.run(path, conf={"folder": str(folder)})
    yield Detailed(stack, run, folder)
    run.cancel()
    run.wait(timeout=60)


def test_a_log_is_read_while_it_is_written(detailed):
    told = []

    def ask():
        answer = detailed.tail("speaks", after=len(told))
        told.extend(answer["lines"])
        assert answer["next"] == len(told)
        return answer

    def spoken():
        return [line["text"] for line in told if line["text"].startswith("line")]

    for number in range(3):
        until(lambda: ask() and len(spoken()) == number + 1)  # noqa: B023
        assert not ask()["ended"]
        (detailed.folder / str(number)).touch()
    until(lambda: ask()["ended"])
    assert spoken() == ["line 0", "line 1", "line 2"]
    assert detailed.tail("speaks")["lines"] == told
    assert {line["level"] for line in told} == {"info"}
    assert [line["time"] for line in told] == sorted(line["time"] for line in told)
    again = detailed.tail("speaks", after=len(told))
    assert again == {"lines": [], "next": len(told), "ended": True}
    assert detailed.tail("speaks", after=2)["lines"] == told[2:]


def test_a_long_log_is_read_in_parts(detailed):
    detailed.ended("writes")
    parts = [detailed.tail("writes")]
    while not parts[-1]["ended"]:
        parts.append(detailed.tail("writes", after=parts[-1]["next"]))
    lines = [line for part in parts for line in part["lines"]]
    assert len([part for part in parts if part["lines"]]) > 1
    assert [line["text"] for line in lines if line["text"].startswith("number")] == [
        f"number {number}" for number in range(15_000)
    ]
    # A place that nobody has got to in the gateway's memory.
    assert detailed.tail("writes", after=14_123)["lines"][0] == lines[14_123]
    assert any("number 14999" in line for line in detailed.task("writes")["log"])


def test_an_error_shows_the_lines_of_the_cell(detailed):
    told = detailed.ended("reads")
    error = told["error"]
    assert (error["type"], error["value"]) == ("RuntimeError", "can't be read")
    users = [frame for frame in error["frames"] if frame["user"]]
    assert [frame["name"] for frame in users] == ["reads"]
    (frame,) = users
    assert frame["cell"] == "In [7], line 20"
    assert frame["line"] == """raise RuntimeError("can't be read") from error"""
    lines = DETAILED.splitlines()
    around = range(frame["lineno"] - 3, frame["lineno"] + 4)
    assert frame["context"] == [[number, lines[number - 1]] for number in around]
    assert not any("context" in frame or frame["cell"] for frame in error["frames"] if not frame["user"])
    text = error["text"].splitlines()
    assert text[0] == "Traceback (most recent call last):"
    assert "ValueError: not a number: xyz" in text
    assert "  Cell In [3], line 4, in parse" in text
    assert text[-1] == "RuntimeError: can't be read"


def test_the_error_is_not_repeated_in_the_log(detailed):
    told = detailed.ended("reads")
    assert any("about to read" in line for line in told["log"])
    assert not any("Traceback" in line or "Task failed with exception" in line for line in told["log"])
    assert len(told["log"]) <= 20


def test_a_task_that_waits_for_a_retry_has_its_time(detailed):
    told = detailed.ended("reads")
    assert told["state"] == "up_for_retry"
    assert told["next_retry_at"] > told["tries"][0]["end_date"]
    assert [one["try_number"] for one in told["tries"]] == [1]
    until(lambda: detailed.tail("reads")["ended"])


def test_a_former_try_has_its_error_and_its_log(detailed):
    detailed.ended("reads")
    detailed.run.clear("reads")
    told = detailed.task("reads")["tries"]
    assert len({one["start_date"] for one in told}) == len(told)
    until(lambda: detailed.task("reads")["try_number"] == 2 and detailed.ended("reads"))
    former = detailed.task("reads", try_number=1)
    assert former["try_number"] == 1
    assert former["error"]["type"] == "RuntimeError"
    assert [one["try_number"] for one in former["tries"]] == [1, 2]
    assert detailed.tail("reads", try_number=1)["ended"]


def test_code_that_has_changed_since_the_try_is_not_shown(detailed):
    failed = detailed.ended("helped")

    def helpers():
        (frame,) = (
            frame for frame in detailed.task("helped")["error"]["frames"] if frame["name"] == "divide"
        )
        return frame

    assert failed["error"]["type"] == "ZeroDivisionError"
    assert helpers()["line"] == "return a / b"
    assert helpers()["cell"] is None
    assert helpers()["user"]
    (detailed.folder / "detailed_helper.py").write_text("# not what was executed\n" + HELPER)
    assert (helpers()["line"], helpers()["context"]) == ("", [])


def test_a_page_gets_the_task_and_the_log_that_it_requests(detailed):
    detailed.ended("many", map_index=1)
    live = SimpleNamespace(poller=GridPoller(detailed.stack.client, detailed.run.dag_id, detailed.run.run_id))
    asked = {"task_id": "many", "map_index": 1, "try_number": 1}
    told = page_requests.answer(live, {"op": "task", **asked})
    assert told.pop("commands")
    assert told == detailed.task(**asked)
    log = page_requests.answer(live, {"op": "log", **asked, "after": 1})
    assert log["lines"] == detailed.tail(**asked)["lines"][1:]
    with pytest.raises(RunNotFoundError, match="has no task"):
        page_requests.answer(live, {"op": "log", "task_id": "nothing", "map_index": -1, "try_number": 1})


def test_xcoms_are_short_texts(detailed):
    told = detailed.ended("many", map_index=1)
    assert [xcom["key"] for xcom in told["xcoms"]] == ["return_value", "note"]
    assert told["xcoms"][0]["value"] == "item 2"
    assert told["xcoms"][1]["value"].startswith("{'long': 'xxx")
    assert len(told["xcoms"][1]["value"]) == 2_000


def test_rendered_fields_are_masked_as_airflow_masks_them(detailed):
    rendered = detailed.ended("rendered")["rendered"]
    assert rendered["op_kwargs"] == {"password": "***", "day": detailed.run.run_id}


def test_a_task_that_succeeded_has_no_error(detailed):
    told = detailed.ended("rendered")
    assert (told["state"], told["error"], told["next_retry_at"]) == ("success", None, None)
    assert told["operator"] == "PythonOperator"
    (only,) = told["tries"]
    assert only["duration"] > 0
    assert only["hostname"]
    assert only["queued_dttm"] <= only["start_date"] <= only["end_date"]


@pytest.mark.parametrize("operation", ["task", "tail"])
def test_an_error_names_the_task_or_run_that_does_not_exist(detailed, operation):
    ask = getattr(detailed, operation)
    detailed.ended("many", map_index=1)
    with pytest.raises(RunNotFoundError, match="has no task 'nothing'"):
        ask("nothing")
    with pytest.raises(RunNotFoundError, match="map_index 2") as error:
        ask("many", map_index=2)
    assert error.value.hint == "It is mapped: choose a map_index of 0 to 1."
    with pytest.raises(RunNotFoundError, match="has no try 9"):
        ask("speaks", try_number=9)
    with pytest.raises(RunNotFoundError, match="has no run 'nothing'"):
        ask("speaks", run_id="nothing")
    with pytest.raises(DagNotFoundError, match="no DAG 'detaild'"):
        ask("speaks", dag_id="detaild")
