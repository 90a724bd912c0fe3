"""What a scheduling pass looks at, on a real database."""

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
    assert graph["seen_by"] == {"a": ["b", "c"], "b": ["any", "c"], "c": ["any"], "any": []}
    assert graph["waits_for"] == {"a": [], "b": [], "c": ["a", "b"], "any": []}


def test_setup_and_teardown_see_beyond_their_neighbours(found):
    graph = found["graphs"]["staged"]
    assert graph["sees"]["two"] == ["make", "one"], "a setup decides about every task of its scope"
    assert graph["sees"]["drop"] == ["make", "one", "two"], "a teardown waits for its whole scope"


def test_mapped_task_waits_for_what_it_maps_over(found):
    graph = found["graphs"]["mapped"]
    assert graph["sees"]["square"] == ["numbers"]
    assert graph["waits_for"]["total"] == ["square"]
    assert graph["same_instance"] == []


def test_instances_of_a_mapped_group_concern_each_other_alone(found):
    graph = found["graphs"]["mapped_group"]
    assert graph["sees"]["copy.write"] == ["copy.read", "names"]
    assert graph["same_instance"] == [["copy.read", "copy.write"], ["copy.write", "copy.read"]]


def test_later_runs_look_at_a_task_and_at_what_is_below_it(found):
    assert found["graphs"]["remembers"]["remembered"] == {
        "back": ["back"],
        "whole": ["whole"],
        "below": ["whole"],
    }
    assert found["graphs"]["edges"]["remembered"] == {}


def test_cost_of_a_completion_does_not_grow_with_the_dag(found):
    small, large = found["costs"]["20"], found["costs"]["200"]
    assert large["statements"] <= small["statements"]
    assert large["loaded"] <= small["running"] + 2, "no more than one round of running tasks is loaded"
    for cost in (small, large):
        assert [row[:4] for row in cost["changed"]] == [["task_0", -1, "success", 1]]
        assert cost["ready"] == 1, "the slot that it gave back is taken"


def test_too_large_a_payload_is_refused():
    result = PassResult(changed=[["a_task_id" * 10, index, "success", 1] for index in range(20_000)])
    with pytest.raises(PayloadTooLargeError, match=r"what a pass decided takes [\d,]+ bytes"):
        check_size(result, "what a pass decided")
    small = PassResult(changed=[["a", 1, "success", 1]])
    assert check_size(small, "it") is small
