"""The frames of a real run: groups, mapped tasks, a retry, a skip, a failure, assets."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

import temporal_airflow_nb as ta
import temporal_airflow_nb.frames
from temporal_airflow_nb.config.environment import HOME_VARIABLE
from temporal_airflow_nb.dag_runs.frames import FRAMES
from temporal_airflow_nb.errors import (
    DagNotFoundError,
    InvalidInputError,
    RunNotFoundError,
    ServiceUnavailableError,
)
from temporal_airflow_nb.frames import tasks_frame
from temporal_airflow_nb.stack import current
from tests.support.paths import INTEGRATION_DAGS
from tests.support.waiting import until

HARVEST = INTEGRATION_DAGS / "harvest.py"


@pytest.fixture(scope="module")
def run(stack):
    current.use(stack)
    run = stack.run(HARVEST, dag_id="harvest")
    assert run.wait(timeout=60) == "failed"
    yield run
    current.use(None)


@pytest.fixture(scope="module")
def baked(run, stack):
    """The run that the harvest's asset has created."""
    until(lambda: len(ta.runs("bakery")) > 0)
    baked = ta.runs.latest("bakery")
    assert baked.wait(timeout=60) == "success"
    return baked


def test_tasks_are_in_topological_order_with_their_groups_and_labels(run):
    tasks = run.tasks
    assert set(tasks["task_id"][:2]) == {"fields", "fence"}
    assert list(tasks["task_id"][2:]) == ["mow", "mow", "barn.store", "barn.sell"]
    assert list(tasks["map_index"][2:]) == [0, 1, -1, -1]
    assert list(tasks["label"][2:4]) == ["north", "south"]
    assert list(tasks["group"][4:]) == ["barn", "barn"]
    states = tasks.groupby("task_id")["state"].agg(set).to_dict()
    assert states["fence"] == {"failed"}
    assert states["barn.sell"] == {"skipped"}
    assert tasks["group"].isna().sum() == 4


def test_tasks_are_the_same_by_columns_and_by_the_snapshot(run):
    pd.testing.assert_frame_equal(run.tasks, tasks_frame(run.snapshot()))


def test_the_tries_frame_has_every_try(run):
    mown = run.tries.query("task_id == 'mow' and map_index == 1")
    assert list(mown["try_number"]) == [1, 2]
    assert list(mown["state"]) == ["failed", "success"]
    first, second = mown.to_dict("records")
    assert first["end_date"] <= second["queued_dttm"] <= second["start_date"]
    assert first["duration"] > pd.Timedelta(0)
    assert len(run.tries) == 7


def test_the_xcoms_frame_has_returned_values(run):
    values = run.xcoms.query("key == 'return_value'").groupby("task_id")["value"].agg(list).to_dict()
    assert values == {"fields": [["north", "south"]], "mow": [5, 5]}


def test_the_events_frame_describes_the_history_in_words(run):
    events = run.events
    assert events["type"].iloc[0] == "workflow started"
    assert events["type"].iloc[-1] == "workflow completed"
    assert events["detail"].iloc[-1] == "failed"
    assert events["execution"].nunique() == 1
    assert not events["type"].str.startswith("workflow task").any()
    second = events.query("task_id == 'mow' and map_index == 1 and try_number == 2")
    assert list(second["type"]) == ["activity scheduled", "activity started", "activity completed"]
    told = events["detail"].str
    assert told.startswith("schedule_pass: starts mow[0], mow[1]").any()
    assert told.contains("barn.sell skipped").any()
    assert events["time"].dt.tz is not None


def test_asset_events_are_produced_by_one_run_and_consumed_by_another(run, baked):
    (produced,) = run.assets.to_dict("records")
    (consumed,) = baked.assets.to_dict("records")
    assert (produced["direction"], consumed["direction"]) == ("produced", "consumed")
    for event in (produced, consumed):
        assert (event["asset"], event["group"], event["extra"]) == ("crop", "farm", {"loads": 10})
        assert (event["task_id"], event["map_index"]) == ("barn.store", -1)
        assert (event["source_dag_id"], event["source_run_id"]) == ("harvest", run.run_id)


@pytest.mark.parametrize("dtype_backend", [None, "pyarrow"])
@pytest.mark.parametrize("name", FRAMES)
def test_an_empty_frame_has_the_types_of_a_full_one(run, name, dtype_backend):
    full = run.frame(name, dtype_backend=dtype_backend)
    make = getattr(temporal_airflow_nb.frames, f"{name}_frame")
    empty = make([] if name == "xcoms" else {"columns": {}}, dtype_backend=dtype_backend)
    assert len(full) > 0
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()


def test_arrow_frames_have_the_same_values(run):
    for name in FRAMES:
        ours, arrow = run.frame(name), run.frame(name, dtype_backend="pyarrow")
        as_numpy = {column: ours[column].dtype for column in ours}
        pd.testing.assert_frame_equal(arrow.astype(as_numpy), ours, check_dtype=True)


def test_runs_are_newest_first_and_can_be_chosen(run, baked):
    every = list(ta.runs(limit=None)["run_id"])
    assert every.index(baked.run_id) < every.index(run.run_id)
    assert list(ta.runs("bakery", limit=1)["run_id"]) == [baked.run_id]
    row = ta.runs("harvest").set_index("run_id").loc[run.run_id]
    assert (row["state"], row["run_type"]) == ("failed", "manual")
    assert row["version"] >= 1
    assert row["duration"] == row["end_date"] - row["start_date"] > pd.Timedelta(0)
    assert set(ta.runs("harvest", state="failed")["state"]) == {"failed"}
    assert ta.runs("bakery", state="failed").empty


def test_a_run_is_found_by_its_ids_or_as_the_latest(run, baked):
    assert ta.runs.get("harvest", run.run_id).workflow_id == run.workflow_id
    assert ta.runs.latest("harvest").run_id == run.run_id


def test_dags_and_pools(run, baked):
    harvest = ta.dags().set_index("dag_id").loc["harvest"]
    assert harvest["tags"] == ["autumn", "farm"]
    assert (harvest["owners"], harvest["file"], harvest["description"]) == ("anna", "harvest.py", "Ripe.")
    assert not harvest["is_paused"]
    assert (harvest["last_run_id"], harvest["last_run_state"]) == (run.run_id, "failed")
    pools = ta.pools().set_index("pool")
    assert pools.loc["default_pool", "slots"] == pools.loc["default_pool", "open"] == 128


@pytest.mark.parametrize("make", [ta.runs, ta.dags, ta.pools])
def test_frames_of_the_stack_come_in_arrow_types(run, make):
    assert any("pyarrow" in str(dtype) for dtype in make(dtype_backend="pyarrow").dtypes)


def test_errors_about_wrong_names_list_the_right_ones(run):
    with pytest.raises(DagNotFoundError, match="Did you mean harvest"):
        ta.runs("harvst")
    with pytest.raises(InvalidInputError, match="queued, running, success, failed"):
        ta.runs(state="done")
    with pytest.raises(RunNotFoundError, match="Its latest are"):
        ta.runs.get("harvest", "manual__never")
    with pytest.raises(InvalidInputError, match="It has: tasks, tries, xcoms, events, assets"):
        run.frame("taks")
    with pytest.raises(InvalidInputError, match='Use "pyarrow", or None'):
        run.frame("tasks", dtype_backend="arrow")


def test_arrow_types_without_pyarrow_say_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidInputError, match=r"pip install .*\[arrow\]"):
        run.frame("tasks", dtype_backend="pyarrow")


def test_a_cleared_run_has_the_tries_of_both_executions(run):
    run.clear("fence")
    assert run.wait(timeout=60) == "failed"
    assert list(run.tries.query("task_id == 'fence'")["try_number"]) == [1, 2]
    events = run.events
    assert events["execution"].nunique() == 2
    assert (events["type"] == "workflow started").sum() == 2


def test_a_gateway_beside_the_worker_returns_the_same_frames(run, stack, monkeypatch):
    for name, value in stack.status()["env"].items():
        if name != HOME_VARIABLE:
            monkeypatch.setenv(name, value)
    try:
        with ta.connect() as cluster:
            there = ta.Run(cluster.client, run.dag_id, run.run_id)
            pd.testing.assert_frame_equal(there.events, run.events)
            pd.testing.assert_frame_equal(there.tries, run.tries)
    finally:
        current.use(stack)


def test_tasks_of_an_ended_run_are_known_after_the_stack(run):
    gone = type(run)(_Gone(), run.dag_id, run.run_id)
    with pytest.raises(ServiceUnavailableError):
        gone.tasks  # noqa: B018
    gone._last_snapshot = run.snapshot()
    pd.testing.assert_frame_equal(gone.tasks, run.tasks)
    assert "barn" in repr(gone.plot())


class _Gone:
    """A client of a stack that is gone."""

    def without_retries(self, *, timeout=None):
        return self

    def get_run(self, dag_id, run_id):
        raise ServiceUnavailableError("gone")

    get_tasks_table = get_tries_table = get_run


def test_the_chart_of_a_run_has_former_tries(run):
    picture = run.plot()
    assert "try 1: failed" in picture.svg
    assert picture._repr_svg_() == picture.svg in picture._repr_html_()
    assert "barn" in repr(picture)


def test_a_chart_can_be_saved(run, tmp_path):
    run.plot().save(tmp_path / "gantt.svg")
    assert (tmp_path / "gantt.svg").read_text().startswith("<svg")


def test_charts_of_other_libraries_need_them(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InvalidInputError, match="pip install matplotlib"):
        run.plot("matplotlib")
    with pytest.raises(InvalidInputError, match='use "matplotlib"'):
        run.plot("gnuplot")


def test_runs_of_two_versions_are_compared(run, stack, tmp_path):
    edited = tmp_path / "harvest.py"
    edited.write_text(
        HARVEST.read_text().replace("    fence()\n", "    fence() >> task(lambda: 1, task_id='rest')()\n")
    )
    later = stack.run(edited, dag_id="harvest")
    assert later.wait(timeout=60) == "failed"
    versions = ta.runs("harvest").set_index("run_id")["version"]
    assert versions[later.run_id] == versions[run.run_id] + 1
    frame = ta.compare(run, later).frame.set_index(["task_id", "map_index"])
    assert frame.loc[("rest", -1), "only_in"] == "b"
    assert frame.loc[("mow", 1), "tries_a"] == frame.loc[("mow", 1), "tries_b"] == 2
