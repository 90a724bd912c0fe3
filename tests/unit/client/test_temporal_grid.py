"""The grid that is made of a workflow's answer."""

from __future__ import annotations

import asyncio
import base64
import zlib
from types import SimpleNamespace

import pytest

from temporal_airflow_nb.client.temporal.executions import grid_of
from temporal_airflow_nb.client.temporal.grid import WorkflowGrid
from temporal_airflow_nb.errors import UnavailableHereError
from temporal_airflow_nb.orchestration.workflow.grid_encoding import build_node, pack
from temporal_airflow_nb.orchestration.workflow.grid_memory import GridMemory


def bomb() -> str:
    """Return a short text that stands for 100 MB of lists."""
    return base64.b64encode(zlib.compress(b"[" + b"[]," * 33_000_000 + b"[]]")).decode()


def answer(structure: dict | None, *rows: list) -> dict:
    memory = GridMemory()
    memory.put(rows)
    run = {"dag_id": "etl", "run_id": "one", "state": "running", "structure_version": 3}
    return {"run": run, "structure": structure and pack(structure), "tasks": memory.pack()}


def test_a_task_without_a_row_has_no_state_and_keeps_its_place():
    nodes = [
        build_node("load", "load", None, operator="@task"),
        build_node("store", "store", "out", retries=2),
    ]
    grid = WorkflowGrid(answer({"nodes": nodes, "edges": [], "order": [1, 0]}, ["load", -1, "success", 1]))
    assert [(task["task_id"], task["state"], task["max_tries"]) for task in grid.tasks] == [
        ("load", "success", 0),
        ("store", None, 2),
    ]
    assert [task["task_id"] for task in grid.in_topological_order()] == ["store", "load"]
    assert grid.tasks[1]["group"] == "out"
    assert "order" not in grid.structure
    assert grid.structure["version"] == 3
    assert grid.counts() == {"load": {"success": 1}, "store": {"no_status": 1}}


def test_grid_without_structure_is_flat():
    grid = WorkflowGrid(answer(None, ["store", -1, None, 0], ["load", 1, "success", 1, 0, 0.5, 1.0, 2.25]))
    assert [one["id"] for one in grid.structure["nodes"]] == ["load", "store"]
    assert grid.structure["edges"] == []
    assert grid.structure["version"] is None
    (load, _) = grid.in_topological_order()
    assert load["start_date"] == "1970-01-01T00:00:01+00:00"
    assert load["duration"] == 1.25


def test_an_answer_before_the_dag_is_loaded_is_empty():
    grid = WorkflowGrid(answer(None))
    assert grid.tasks == []
    assert grid.run["start_date"] is None


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "text",
        {},
        {"run": {}, "structure": None, "tasks": "not packed"},
        {"run": {}, "structure": None, "tasks": pack({"a": 1})},
        {"run": {"run_id": "one", "state": None}, "structure": None, "tasks": pack([["load"]])},
        {"run": {"run_id": "one", "state": None}, "structure": pack([1]), "tasks": pack([])},
        {
            "run": {"run_id": "one", "state": None},
            "structure": None,
            "tasks": pack([["load", -1, {}, *[0] * 6, []]]),
        },
        {"run": {"run_id": "one", "state": None, "start_date": 1e300}, "structure": None, "tasks": pack([])},
        {"run": {"run_id": "one", "state": None}, "structure": None, "tasks": bomb()},
    ],
)
def test_an_answer_that_can_t_be_read_is_an_error_that_says_so(sent):
    handle = SimpleNamespace(query=lambda *_, **__: answered(sent))
    client = SimpleNamespace(get_workflow_handle=lambda *_, **__: handle)
    with pytest.raises(UnavailableHereError, match="grid of etl one can't be read"):
        asyncio.run(grid_of(client, "etl", "one"))


async def answered(sent):
    return sent
