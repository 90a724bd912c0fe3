"""Tests the tab completion of flags, their values, and ids that the stack knows."""

from __future__ import annotations

import time

import pytest
from IPython.core.completer import provisionalcompleter

from tests.support.waiting import until

CELL = """%%temporal_dag --wait
from airflow.sdk import dag, task

@dag(schedule=None)
def completed():
    @task
    def first():
        pass

    @task
    def second():
        pass

    first() >> second()

completed()
"""


@pytest.fixture
def complete(shell):
    def complete(text, whole=False):
        with provisionalcompleter():
            found = list(shell.ip.Completer.completions(text, len(text)))
        line = text.rpartition("\n")[2]
        start = len(text) - len(line)
        return [line[: c.start - start] + c.text for c in found] if whole else [c.text for c in found]

    return complete


@pytest.fixture
def known(shell, stack, monkeypatch):
    """A run that the stack knows."""
    monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", str(stack.home))
    shell.run(CELL)
    return shell.ns["run"]


def test_flags_and_their_values_are_completed(complete):
    assert complete("%%temporal_dag --ba") == ["--backfill"]
    assert "--no-run" in complete("%%temporal_dag --wait --")
    assert "--wait" not in complete("%%temporal_dag --wait --")
    assert set(complete("%%temporal_dag --view ")) == {"grid", "graph", "gantt", "none"}
    assert complete("%%temporal_dag --worker-lost f") == ["fail"]
    assert complete("%temporal_runs --state qu") == ["queued"]
    assert set(complete("%temporal_ui ")) == {"airflow", "temporal"}


def test_ids_of_runs_dags_and_tasks_are_completed(complete, known):
    def completes(text, wanted):
        # One that the stack can't answer at once is answered at the next try.
        return until(lambda: set(wanted) <= set(complete(text)), timeout=10)

    assert completes("%temporal_show comp", ["completed"])
    assert completes("%temporal_runs ", ["completed"])
    shown = f"%temporal_show {known.run_id}"
    assert until(lambda: complete(shown[:-3], whole=True) == [shown], timeout=10)
    assert completes('run.logs("', ["first", "second"])
    assert complete('run.clear(["first", "se') == ["second"]
    assert set(complete('run.mark("')) == {"success", "failed", "skipped"}
    assert completes('run.mark("success", "fi', ["first"])
    assert completes('ta.runs("comp', ["completed"])


def test_other_code_is_completed_as_usual(complete, shell):
    shell.run("some_name = 1")
    assert "some_name" in complete("some_n")


def test_completion_is_silent_and_quick_without_a_stack(complete, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", str(tmp_path / "none"))
    begun = time.monotonic()
    complete("%temporal_show x_y_z")
    assert time.monotonic() - begun < 5
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "none").exists()
