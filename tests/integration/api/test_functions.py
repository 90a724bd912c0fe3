"""Tests the public functions and their async versions."""

from __future__ import annotations

import asyncio
import inspect

import pytest

import temporal_airflow_nb as ta
from temporal_airflow_nb import LocalStack
from temporal_airflow_nb.errors import (
    InvalidInputError,
    PreflightError,
    RunNotFoundError,
    ServiceUnavailableError,
)
from temporal_airflow_nb.stack import current

SOURCE = """
from airflow.sdk import dag, task

@dag(schedule=None, params={"name": "you"})
def by_function():
    @task
    def hello(params=None):
        return f"hello {params['name']}"
    hello()

by_function()
"""


@pytest.fixture(autouse=True)
def home(stack, monkeypatch):
    monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", str(stack.home))
    yield
    current.use(None)


@pytest.fixture(scope="module")
def run(stack):
    return ta.run_cell(SOURCE, params={"name": "me"}, wait=True, home=stack.home)


def test_source_runs_as_a_cell_does(run):
    assert run.state == "success"
    assert list(run.xcoms["value"]) == ["hello me"]
    assert ta.runs.latest("by_function").run_id == run.run_id


def test_show_finds_a_run_by_its_id_its_dag_and_as_the_latest(run, capsys):
    for name in (run, run.run_id, "by_function"):
        assert ta.show(name).run_id == run.run_id
        assert "by_function" in capsys.readouterr().out
    assert isinstance(ta.show(), ta.Run)
    with pytest.raises(RunNotFoundError, match="'by_functoin'") as caught:
        ta.show("by_functoin")
    assert "Did you mean by_function" in caught.value.hint


def test_status_describes_the_stack_in_use(stack):
    status = ta.status()
    assert status["where"]["state folder"] == str(stack.home)
    assert status["production"] is False
    assert {row["name"] for row in status["services"]} >= {"temporal", "database", "worker"}
    assert "This is production" not in repr(status) + status._repr_html_()
    assert "Airflow 3.3" in repr(status)


def test_a_production_warning_is_in_the_first_line():
    from temporal_airflow_nb.api.status import Status

    where = {"temporal": "cloud:7233 / prod", "airflow": "database db/airflow"}
    status = Status(services=[], env={}, where=where, production=True)
    assert repr(status).splitlines()[0] == "This is production: cloud:7233 / prod, database db/airflow."
    assert 'role="alert"' in status._repr_html_()


def test_pages_are_links(stack):
    link = ta.ui("temporal")
    assert link == stack.links["temporal"]
    assert f'href="{link}"' in link._repr_html_()
    assert {type(each._repr_html_()) for each in (link, ta.status())} == {str}
    with pytest.raises(InvalidInputError, match="no Airflow UI"):
        ta.ui("airflow")
    with pytest.raises(InvalidInputError, match="no UI 'x'"):
        ta.ui("x")


def test_invalid_arguments_are_named(run):
    for call, words in [
        (lambda: ta.show(5), "must be a string, not 5"),
        (lambda: ta.runs(5), "5 as dag_id"),
        (lambda: ta.runs(limit=-1), "`limit` is -1"),
        (lambda: run.clear("hello", map_index="x"), "'x' as map_indexes"),
        (lambda: run.client.get_run(object(), ""), "JSON"),
    ]:
        with pytest.raises(InvalidInputError, match=words):
            call()


def test_similar_names_are_suggested_regardless_of_case(run):
    for call, meant in [
        (lambda: ta.show("BY_FUNCTION"), "Did you mean by_function"),
        (lambda: ta.runs("By_Function"), "Did you mean by_function"),
        (lambda: run.logs("Hello"), "Did you mean hello?"),
        (lambda: run.respond("Hello", "Approve"), "Did you mean hello?"),
        (lambda: run.logs("hello", map_index=4), "It isn't mapped"),
    ]:
        with pytest.raises(InvalidInputError) as caught:
            call()
        assert meant in caught.value.hint


@pytest.mark.parametrize("refused", [{"db": "postgres"}, {"ui": True}], ids=str)
def test_a_refused_up_changes_nothing(stack, refused):
    with pytest.raises(InvalidInputError):
        ta.up(stack.home, **refused)
    assert ta.up(stack.home).is_running


def test_up_attaches_and_down_reports_whether_a_stack_was_running(stack, tmp_path):
    assert ta.up(stack.home).is_running
    assert current.current().home == stack.home
    assert ta.down(tmp_path / "none") is False
    current.use(LocalStack(tmp_path / "none"))
    assert ta.down() is False
    assert current.current().home == stack.home
    with pytest.raises(ServiceUnavailableError, match="No stack runs in"):
        current.client(tmp_path / "none")


def test_a_dag_is_written_as_a_plain_file(tmp_path):
    path = ta.write_dag(SOURCE, tmp_path / "by_function.py")
    assert "def by_function()" in path.read_text()
    with pytest.raises(PreflightError, match="cell line"):
        ta.write_dag(SOURCE + "undefined_name\n", tmp_path / "other.py")
    assert not (tmp_path / "other.py").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"view": "grd"},
        {"worker_lost": "maybe"},
        {"backfill": ("x", "y")},
        {"backfill": (1, 2)},
        {"backfill": "2026-01-01"},
        {"params": ["name"]},
        {"conf": {"a": {1}}},
        {"name": 7},
        {"write_to": 5},
        {"write_to": "/proc/x.py"},
    ],
    ids=str,
)
def test_arguments_are_checked_before_anything_starts(tmp_path, wrong):
    with pytest.raises(InvalidInputError):
        ta.run_cell(SOURCE, home=tmp_path / "unused", **wrong)
    assert not (tmp_path / "unused").exists()


async def test_each_function_has_an_async_version(run):
    functions = [
        name for name in ta.__all__ if inspect.isfunction(getattr(ta, name)) and "ipython" not in name
    ]
    assert {"run_cell", "show", "status", "up", "down", "ui", "write_dag", "dags", "pools"} <= set(functions)
    for name in functions:
        twin = getattr(ta.aio, name)
        assert inspect.iscoroutinefunction(twin)
        assert inspect.signature(twin) == inspect.signature(getattr(ta, name))
    assert set(functions) <= set(dir(ta.aio))
    assert (await ta.aio.status())["services"] == ta.status()["services"]
    assert (await ta.aio.runs.latest("by_function")).run_id == run.run_id
    assert len(await ta.aio.runs("by_function", limit=1)) == 1
    with pytest.raises(AttributeError):
        _ = ta.aio.nope


async def test_methods_and_properties_of_a_run_have_async_versions(run):
    assert await run.aio.wait(timeout=10) == "success"
    assert await run.aio.state() == "success"
    assert list((await run.aio.xcoms())["value"]) == ["hello me"]
    assert "hello" in str(await run.aio.logs("hello"))
    assert {"wait", "tasks", "logs", "cancel"} <= set(dir(run.aio))
    with pytest.raises(RunNotFoundError):
        await run.aio.logs("nope")


async def test_the_event_loop_stays_free_and_cancelling_is_safe(stack, tmp_path):
    gate = tmp_path / "gate"
    held = SOURCE.replace(
        "return",
        f"import os, time\n        while not os.path.exists({str(gate)!r}): time.sleep(0.05)\n        return",
    )
    run = await ta.aio.run_cell(held.replace("by_function", "held_by_function"))
    waiting = asyncio.ensure_future(run.aio.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.touch()
    assert await run.aio.wait(timeout=60) == "success"
