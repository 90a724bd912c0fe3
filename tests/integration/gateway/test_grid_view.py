"""A DAG's grid through the gateway: as a whole, and then as changes, which the notebook's state merges."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from temporal_airflow_nb.errors import RunNotFoundError
from temporal_airflow_nb.live_grid.grid_state import GridState
from tests.support.paths import INTEGRATION_DAGS
from tests.support.waiting import until

FED = INTEGRATION_DAGS / "fed.py"


class Watcher:
    """Merges the changes of a grid."""

    def __init__(self, stack, run):
        self.stack = stack
        self.state = GridState(run.dag_id, run.run_id)
        self.answers = []

    def ask(self, timeout=1.0, **changed):
        which = {"dag_id": self.state.dag_id, "run_id": self.state.run_id, "after": self.state.cursor}
        answer = self.stack.client.get_grid_changes(timeout=timeout, **{**which, **changed})
        if not changed:
            self.answers.append(answer)
            self.state.apply(answer)
        return answer

    def until(self, condition):
        until(lambda: self.ask() and condition())

    def states(self, task_id):
        tasks = self.state.full_state()["tasks"]
        return [task["state"] for task in tasks if task["task_id"] == task_id]

    def task(self, task_id):
        return next(task for task in self.state.full_state()["tasks"] if task["task_id"] == task_id)

    def is_whole(self):
        """Whether the merged changes equal the whole grid."""
        newcomer = Watcher(self.stack, self.state)
        newcomer.ask(timeout=0)
        return _comparable(newcomer.state.full_state()) == _comparable(self.state.full_state())


def _comparable(full):
    cells = {
        run_id: {task: counts for task, counts in tasks.items() if counts}
        for run_id, tasks in full["cells"].items()
    }
    return {**full, "cells": cells, "seq": None, "now": None}


@pytest.fixture(scope="module")
def earlier(stack):
    """A run that has ended."""
    run = stack.run(FED)
    assert run.wait(timeout=60) == "success"
    return run


@pytest.fixture(scope="module")
def watched(stack, earlier, tmp_path_factory):
    """A run, watched from its beginning; it lasts until its gate is opened."""
    gate = tmp_path_factory.mktemp("gate") / "open"
    run = stack.run(FED, conf={"gate": str(gate)})
    watcher = Watcher(stack, run)
    watcher.run, watcher.open = run, gate.touch
    watcher.until(lambda: watcher.states("barn.open_up") == ["running"])
    yield watcher
    gate.touch()
    run.wait(timeout=60)


def test_a_caller_without_a_cursor_gets_the_whole_grid(stack, earlier):
    answer = Watcher(stack, earlier).ask(timeout=0)
    assert answer["full"]
    assert answer["workflow_id"] == earlier.workflow_id
    assert answer["links"]["temporal"].startswith("http")
    nodes = {node["id"]: node for node in answer["structure"]["nodes"]}
    assert list(nodes) == ["rows", "mow", "barn", "barn.open_up", "barn.store"]
    assert nodes["barn"]["kind"] == "group"
    assert nodes["mow"]["mapped"]
    assert nodes["barn.store"] | {"parent": "barn", "label": "store", "retries": 2} == nodes["barn.store"]
    assert ["rows", "mow"] in answer["structure"]["edges"]
    assert ["barn.open_up", "barn.store"] in answer["structure"]["edges"]
    tasks = [(task["task_id"], task["map_index"], task["state"]) for task in answer["tasks"]]
    assert tasks == [
        ("rows", -1, "success"),
        ("mow", 0, "success"),
        ("mow", 1, "success"),
        ("barn.open_up", -1, "success"),
        ("barn.store", -1, "success"),
    ]
    assert answer["tasks"][3]["group"] == "barn"


def test_former_tries_have_their_times(stack, earlier):
    tasks = Watcher(stack, earlier).ask(timeout=0)["tasks"]
    (south,) = (task for task in tasks if task["map_index"] == 1)
    ((number, state, queued, start, end),) = south["tries"]
    assert (number, state) == (1, "failed")
    assert queued <= start <= end <= south["start_date"]
    assert south["try_number"] == 2
    assert all(task["tries"] == [] for task in tasks if task is not south)


def test_the_first_answer_is_whole_and_later_answers_are_changes(watched):
    assert [answer["full"] for answer in watched.answers[:3]] == [True, False, False]
    assert all(answer["structure"] is None for answer in watched.answers[1:])
    assert all(watched.run.run_id in [run["run_id"] for run in answer["runs"]] for answer in watched.answers)
    assert watched.is_whole()


def test_an_expanded_task_is_removed(watched):
    assert ["mow", -1] in [removed for answer in watched.answers for removed in answer["removed"]]
    assert watched.states("mow") == ["success", "success"]


def test_other_runs_are_counted(watched, earlier):
    cells = watched.state.full_state()["cells"]
    assert watched.run.run_id not in cells
    assert cells[earlier.run_id]["mow"] == {"success": 2}
    runs = [run["run_id"] for run in watched.state.full_state()["runs"]]
    assert runs[:2] == [watched.run.run_id, earlier.run_id]


def test_an_answer_without_changes_is_empty(watched):
    watched.until(lambda: not watched.answers[-1]["tasks"])
    quiet = watched.ask(timeout=0)
    assert not quiet["full"]
    assert [quiet[name] for name in ("tasks", "removed", "cells", "dropped")] == [[], [], {}, []]


def test_a_cursor_of_another_gateway_gets_the_whole_grid(watched):
    assert watched.ask(timeout=0, after="0badcafe.7")["full"]
    assert watched.ask(timeout=0, after="nonsense")["full"]


def test_callers_with_different_cursors_end_with_the_same_grid(stack, watched):
    late = Watcher(stack, watched.run)
    late.ask()
    watched.open()
    watched.until(lambda: watched.state.ended)
    late.until(lambda: late.state.ended)
    assert watched.states("barn.store") == late.states("barn.store") == ["success"]
    assert watched.is_whole()
    assert late.is_whole()


def test_a_task_that_is_cleared_after_the_end_is_a_change(watched):
    watched.open()
    watched.until(lambda: watched.state.ended)
    watched.run.clear("barn.store")
    watched.until(lambda: watched.task("barn.store")["try_number"] == 2 and watched.state.ended)
    store = watched.task("barn.store")
    assert (store["state"], [one[:2] for one in store["tries"]]) == ("success", [[1, "success"]])
    assert watched.is_whole()


def test_a_window_of_one_run_drops_the_others(stack, watched):
    answer = watched.ask(timeout=0, runs=1, after=None)
    assert [run["run_id"] for run in answer["runs"]] == [watched.run.run_id]
    assert answer["cells"] == {}


def test_a_run_outside_the_window_is_shown_with_the_latest(stack, watched, earlier):
    answer = Watcher(stack, earlier).ask(timeout=0, runs=1, after=None)
    assert [run["run_id"] for run in answer["runs"]] == [watched.run.run_id, earlier.run_id]
    assert {task["task_id"] for task in answer["tasks"]} == {"rows", "mow", "barn.open_up", "barn.store"}


def test_an_error_names_a_missing_or_deleted_run(stack, earlier, watched):
    with pytest.raises(RunNotFoundError, match="has no run 'nothing'"):
        watched.ask(timeout=5, run_id="nothing")
    watcher = Watcher(stack, earlier)
    watcher.ask()
    engine = sa.create_engine(stack.status()["env"]["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.begin() as connection:
        for table in ("task_instance", "dag_run"):
            connection.execute(
                sa.text(f"DELETE FROM {table} WHERE dag_id = 'fed' AND run_id = :run_id"),
                {"run_id": earlier.run_id},
            )
    watched.until(lambda: earlier.run_id in [run for one in watched.answers for run in one["dropped"]])
    with pytest.raises(RunNotFoundError, match="has no run"):
        watcher.ask(timeout=5)
