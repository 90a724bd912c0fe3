"""The grid of a run as its workflow remembers it."""

from __future__ import annotations

import base64
import random
import zlib

import pytest

from temporal_airflow_nb.orchestration.workflow.grid_encoding import (
    UnreadableGridError,
    pack,
    pack_within,
    unpack,
)
from temporal_airflow_nb.orchestration.workflow.grid_memory import GridMemory
from temporal_airflow_nb.orchestration.workflow.models import MAX_PAYLOAD

LOAD = ("load", -1)


def only_row(memory: GridMemory) -> list:
    (row,) = memory.rows()
    return row


def test_a_row_of_an_older_history_is_filled_up():
    memory = GridMemory()
    memory.put([["load", -1, "success", 1]])
    assert only_row(memory) == ["load", -1, "success", 1, None, None, None, None, None, []]
    assert memory.known() == [["load", -1, "success", 1]]


def test_a_failed_try_becomes_a_former_try_when_the_next_one_is_due():
    memory = GridMemory()
    memory.put([["load", -1, "scheduled", 1, 2]])
    memory.start(LOAD, 1, now=5.0)
    assert only_row(memory) == ["load", -1, "running", 1, 2, 5.0, 5.0, None, None, []]
    memory.put([["load", -1, "up_for_retry", 1, 2, 4.0, 6.0, 7.0]])
    assert only_row(memory)[5:] == [4.0, 6.0, 7.0, None, []], "until then it is the current try"
    memory.put([["load", -1, "scheduled", 2, 2, 4.0, 6.0, 7.0]])
    assert only_row(memory)[5:] == [None, None, None, None, [[1, "failed", 4.0, 6.0, 7.0]]]
    memory.start(LOAD, 2, now=9.0)
    memory.put([["load", -1, "success", 2, 2, 8.0, 9.5, 10.0]])
    assert only_row(memory)[5:] == [8.0, 9.5, 10.0, None, [[1, "failed", 4.0, 6.0, 7.0]]]


def test_a_cleared_task_starts_without_the_times_of_its_former_try():
    memory = GridMemory()
    memory.put([["load", -1, "success", 1, 0, 4.0, 6.0, 7.0]])
    memory.put([["load", -1, None, 1, 1, 4.0, 6.0, 7.0]])
    assert only_row(memory)[5:] == [None, None, None, None, [[1, "success", 4.0, 6.0, 7.0]]]


def test_a_task_cleared_while_running_gets_its_times_from_the_database():
    memory = GridMemory()
    memory.start(LOAD, 1, now=5.0)
    memory.put([["load", -1, "scheduled", 2, 1, 4.0, 6.0, 7.0]])
    assert only_row(memory)[5:] == [None, None, None, None, [[1, "failed", 4.0, 6.0, 7.0]]]


def test_a_task_resumed_by_its_trigger_is_the_same_try():
    memory = GridMemory()
    memory.start(LOAD, 1, now=5.0)
    memory.put([["load", -1, "deferred", 1, 0, 4.0, 6.0]])
    memory.put([["load", -1, "scheduled", 1, 0, 4.0, 6.0]])
    memory.start(LOAD, 1, now=8.0)
    assert only_row(memory) == ["load", -1, "running", 1, 0, 4.0, 6.0, None, None, []]


def test_expanded_instances_replace_the_mapped_task():
    memory = GridMemory()
    memory.put([["load", -1, None, 0]])
    memory.put([["load", 0, None, 0], ["load", 1, None, 0]])
    assert [row[1] for row in memory.rows()] == [0, 1]
    assert memory.counts() == {"none": 2}


def test_the_next_execution_remembers_the_same_rows():
    memory = GridMemory()
    memory.put(
        [["load", -1, "failed", 1, 1, 4.0, 6.0, 7.0], ["store", 3, "skipped", 0, 0, None, 8.0, 8.0, "x"]]
    )
    memory.put([["load", -1, "scheduled", 2, 1, 4.0, 6.0, 7.0]])
    assert GridMemory(memory.pack()).rows() == memory.rows()


def test_a_new_workflow_remembers_the_tries_from_the_database():
    memory = GridMemory()
    memory.remember([["load", -1, [[1, "failed", 4.0, 6.0, 7.0]]]])
    memory.put([["load", -1, "queued", 2, 1, 4.0, 6.0, 7.0]])
    assert only_row(memory)[5:] == [None, None, None, None, [[1, "failed", 4.0, 6.0, 7.0]]]
    memory.put([["load", -1, "success", 2, 1, 8.0, 9.0, 9.5]])
    assert only_row(memory)[5:] == [8.0, 9.0, 9.5, None, [[1, "failed", 4.0, 6.0, 7.0]]]


def test_a_try_that_is_up_for_retry_is_not_a_former_try():
    memory = GridMemory()
    memory.remember([["load", -1, [[1, "failed", 4.0, 6.0, 7.0]]]])
    memory.put([["load", -1, "up_for_retry", 1, 1, 4.0, 6.0, 7.0]])
    assert only_row(memory)[5:] == [4.0, 6.0, 7.0, None, []]


def test_former_tries_are_left_out_if_they_exceed_the_payload_limit():
    draw = random.Random(7).random

    def moments():
        return [1.7e9 + draw() * 1e6 for _ in range(3)]

    retried = GridMemory()
    retried.put([["load", n, "success", 3, 3, *moments()] for n in range(25_000)])
    retried.remember([["load", n, [[k, "failed", *moments()] for k in (1, 2)]] for n in range(25_000)])
    text = retried.pack()
    assert len(text) < MAX_PAYLOAD
    assert unpack(text)[0][6] is not None
    assert unpack(text)[0][-1] == []


def test_very_many_task_instances_are_packed_without_times():
    memory = GridMemory()
    memory.put([["load", index, "success", 1, 0, 4.123456, 6.1, 7.2] for index in range(100_000)])
    text = memory.pack()
    assert len(text) < MAX_PAYLOAD
    assert unpack(text)[7] == ["load", 7, "success", 1, 0, None, None, None, None, []]


def test_a_label_in_an_older_history_is_not_kept():
    memory = GridMemory(pack([["load", 0, "success", 1, 0, 1.0, 2.0, 3.0, "s3cret", []]]))
    memory.put([["load", 1, "success", 1, 0, 1.0, 2.0, 3.0, "s3cret"]])
    assert "s3cret" not in str(memory.rows())
    assert "s3cret" not in str(unpack(memory.pack()))
    assert len(memory.rows()) == 2


@pytest.mark.parametrize(
    "text", ["", "====", "e30", "not packed", pack({}), pack("x"), pack([[]]), pack([[1, 2]]), pack([None])]
)
def test_a_workflow_that_gets_a_damaged_grid_starts_without_one(text):
    assert GridMemory(text).rows() == []


@pytest.mark.parametrize("data", [b"[" + b"[]," * 2_000_000 + b"[]]", b"[" * 40_000_000, b" " * 50_000_000])
def test_a_short_text_that_stands_for_a_huge_one_is_refused(data):
    text = base64.b64encode(zlib.compress(data)).decode()
    with pytest.raises(UnreadableGridError, match="more than"):
        unpack(text)
    assert GridMemory(text).rows() == []


def test_data_that_is_incomplete_nested_too_deeply_or_followed_by_more_is_refused():
    compressed = zlib.compress(b"[]")
    deep = zlib.compress(b"[" * 1_000_000 + b"]" * 1_000_000)
    for data in (compressed[:-5], compressed + b"more", deep, b""):
        with pytest.raises(UnreadableGridError):
            unpack(base64.b64encode(data).decode())


def test_what_can_t_be_read_again_is_not_packed():
    assert pack_within(["x" * 100] * 400_000, MAX_PAYLOAD) is None
    assert pack_within([[]] * 1_000_000, MAX_PAYLOAD) is None
    assert unpack(pack_within([[]] * 999_999, MAX_PAYLOAD))
    assert pack_within([random.random() for _ in range(100)], 100) is None
    assert unpack(pack_within([1, 2], 100)) == [1, 2]
