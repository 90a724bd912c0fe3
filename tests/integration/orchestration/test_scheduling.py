"""A scheduling pass on a real database: the task graph, and the cost of one completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from temporal_airflow_nb.orchestration.workflow.models import PassResult, PayloadTooLargeError, check_size
from tests.support.paths import ROOT

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    bundle = {
        "name": "shapes",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(HERE / "scheduling_dags")},
    }
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
    }
    command = [sys.executable, "-W", "ignore", "-m", "tests.integration.orchestration.print_scheduling"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout[result.stdout.index('{"graphs"') :])


def test_plain_edges(found):
    graph = found["graphs"]["edges"]
    assert graph["order"] == ["a", "b", "c", "any"]
    assert graph["affects"] == {"a": ["b", "c"], "b": ["any", "c"], "c": ["any"], "any": []}
    assert graph["waits_for"] == {"a": [], "b": [], "c": ["a", "b"], "any": []}


def test_setups_and_teardowns_depend_on_more_than_their_neighbours(found):
    graph = found["graphs"]["staged"]
    assert graph["depends_on"]["two"] == ["make", "one"], "a setup decides about every task of its scope"
    assert graph["depends_on"]["drop"] == ["make", "one", "two"], "a teardown waits for its whole scope"


def test_a_mapped_task_waits_for_its_input(found):
    graph = found["graphs"]["mapped"]
    assert graph["depends_on"]["square"] == ["numbers"]
    assert graph["waits_for"]["total"] == ["square"]
    assert graph["same_instance"] == []


def test_instances_of_a_mapped_group_affect_only_each_other(found):
    graph = found["graphs"]["mapped_group"]
    assert graph["depends_on"]["copy.write"] == ["copy.read", "names"]
    assert graph["same_instance"] == [["copy.read", "copy.write"], ["copy.write", "copy.read"]]


def test_tasks_of_later_runs_depend_on_a_task_and_its_downstreams(found):
    assert found["graphs"]["remembers"]["next_run_dependents"] == {
        "back": ["back"],
        "whole": ["whole"],
        "below": ["whole"],
    }
    assert found["graphs"]["edges"]["next_run_dependents"] == {}


def test_the_cost_of_a_completion_does_not_grow_with_the_dag(found):
    small, large = found["costs"]["20"], found["costs"]["200"]
    assert large["statements"] <= small["statements"]
    assert large["loaded"] <= small["running"] + 2, "only one round of running tasks is loaded"
    for cost in (small, large):
        assert [row[:4] for row in cost["changed"]] == [["task_0", -1, "success", 1]]
        assert cost["ready"] == 1, "the slot that it freed is taken"


def test_a_payload_that_is_too_large_is_refused():
    result = PassResult(changed=[["a_task_id" * 10, index, "success", 1] for index in range(20_000)])
    with pytest.raises(PayloadTooLargeError, match=r"The result takes [\d,]+ bytes"):
        check_size(result, "The result")
    small = PassResult(changed=[["a", 1, "success", 1]])
    assert check_size(small, "The result") is small
