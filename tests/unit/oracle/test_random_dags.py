"""Tests of the random DAGs: each seed gives one DAG, all constructs occur, and no race decides a result."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from functools import cache

import pytest

from tests.compatibility.dags.random_lib import random_dag
from tests.compatibility.dags.random_lib.rules import FAIL, RULES, SKIP, Node, may_end, racy
from tests.compatibility.oracle.catalog import RANDOM
from tests.support.paths import ROOT

ENOUGH = 300

# In how many of the recorded DAGs each construct is, at least.
AT_LEAST = {
    **{f"rule: {rule}": 40 for rule in RULES},
    **{f"rule {rule} in a mapped group": 5 for rule in RULES if rule != "always"},
    **{f"word: {word}": 50 for word in ("good", "skip", "fail", "flaky", "final")},
    "XCom passed on": 60,
    "after a group": 10,
    "branch": 40,
    "branch in a mapped group": 15,
    "branch into a group": 15,
    "cross product": 30,
    "expand": 60,
    "expand_kwargs": 30,
    "fail_fast": 20,
    "fail_fast with a teardown": 10,
    "group": 40,
    "group in a group": 10,
    "mapped group in a group": 5,
    "mapped group over XComs": 25,
    "mapped group over literals": 25,
    "mapped group that returns": 10,
    "mapped group with expand_kwargs": 5,
    "mapped over XComs": 60,
    "mapped over an empty XCom": 10,
    "mapped over literals": 60,
    "mapped over mapped": 10,
    "mapped over what isn't there": 10,
    "mapped, all well": 40,
    "mapped, not all well": 40,
    "max_active_tis_per_dagrun": 5,
    "on_failure_fail_dagrun": 10,
    "retries": 60,
    "retries exhausted": 20,
    "setup and teardown": 40,
    "setup: fail": 5,
    "setup: flaky": 3,
    "setup: good": 20,
    "setup: skip": 3,
    "short circuit that minds trigger rules: False": 10,
    "short circuit that minds trigger rules: True": 3,
    "short circuit: False": 10,
    "short circuit: True": 5,
    "teardown: fail": 5,
    "teardown: good": 20,
    "teardown: skip": 3,
}


@cache
def recorded():
    """Return the native results by seed."""
    found = {}
    for case in RANDOM:
        for dag_id, result in case.recorded().items():
            found[int(dag_id.removeprefix("random_"))] = result
    return found


def test_enough_random_dags_are_recorded():
    assert len(recorded()) >= ENOUGH


def test_a_seed_gives_the_same_dag_in_every_process():
    sources = {
        subprocess.run(
            [sys.executable, "-m", "tests.compatibility.dags.random_lib", *map(str, range(60))],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert sources == {"\n".join(random_dag(seed).source for seed in range(60)) + "\n"}


def test_many_random_dags_contain_each_construct():
    found = Counter()
    for seed in recorded():
        found.update(random_dag(seed).uses.keys())
    assert {what: found[what] for what, least in AT_LEAST.items() if found[what] < least} == {}
    assert found.keys() - AT_LEAST.keys() == set(), "of these nobody asked how many there are"


def test_many_random_dags_contain_each_final_state():
    states = Counter(
        words.split(",")[0] for result in recorded().values() for words in result["tasks"].values()
    )
    assert min(states[state] for state in ("success", "failed", "skipped", "upstream_failed")) > 100
    runs = Counter(result["state"] for result in recorded().values())
    assert min(runs["success"], runs["failed"]) > 50


def test_tasks_end_in_a_predicted_state():
    # What keeps races out of these DAGs is knowing how a task may end.
    surprises = []
    for seed, result in recorded().items():
        ends = random_dag(seed).ends
        for key, words in result["tasks"].items():
            state = words.split(",")[0]
            end = {"skipped": SKIP, "failed": FAIL, "upstream_failed": FAIL}.get(state)
            possible = ends.get(key.split("[")[0])
            if end and possible is not None and end not in possible:
                surprises.append(f"{seed}: {key} is {state}")
    assert surprises == []


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ([Node("a", frozenset({SKIP})), Node("b", frozenset({FAIL}))], True),
        ([Node("a", frozenset({SKIP})), Node("b", frozenset({SKIP}))], False),
        ([Node("a", frozenset({SKIP, FAIL})), Node("b")], False),
        ([Node("a", frozenset({SKIP, FAIL}), many=True)], True),
    ],
)
def test_all_success_over_upstreams_that_end_in_either_order(upstream, expected):
    assert racy(upstream) is expected


def test_predicted_states_follow_from_the_trigger_rule():
    failing, good = Node("a", frozenset({FAIL})), Node("b")
    assert may_end("all_success", [failing, good], frozenset()) == {FAIL}
    assert may_end("all_done", [failing, good], frozenset()) == frozenset()
    assert may_end("one_success", [failing, good], frozenset()) == frozenset()
    assert may_end("none_skipped", [Node("c", frozenset({SKIP}))], frozenset({FAIL})) == {SKIP, FAIL}
