"""The setting ``[temporal_airflow] dags``."""

from __future__ import annotations

import pytest

from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.orchestration.outbox.rollout import Rollout


@pytest.mark.parametrize(
    ("text", "dag_id", "tags", "expected"),
    [
        ("*", "etl", (), True),
        ("etl", "etl", (), True),
        ("etl", "etl_daily", (), False),
        ("etl_*, report", "etl_daily", (), True),
        ("etl_*, report", "report", (), True),
        ("etl_*, !etl_old", "etl_old", (), False),
        ("!etl_old", "etl_old", (), False),
        ("!etl_old", "anything", (), True),
        ("tag:temporal", "etl", ("temporal", "daily"), True),
        ("tag:temporal", "temporal", (), False),
        ("*, !tag:native", "etl", ("native",), False),
        ("etl_[ab]", "etl_a", (), True),
        ("etl_?", "etl_ab", (), False),
        ("ETL", "etl", (), False),
        ("! etl", "etl", (), False),
    ],
)
def test_patterns_and_tags_choose_dags(text, dag_id, tags, expected):
    assert Rollout.parse(text).manages(dag_id, tags) is expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty pattern"),
        ("a,,b", "empty pattern"),
        ("a, !", "empty pattern"),
        ("!!a", "negates twice"),
        ("tag:", "names no tag"),
        ("etl_[ab", "bracket"),
        ("etl daily", "space"),
    ],
)
def test_the_error_names_the_malformed_pattern(text, problem):
    with pytest.raises(InvalidInputError, match=problem) as caught:
        Rollout.parse(text)
    assert "[temporal_airflow] dags" in caught.value.message
    assert caught.value.exit_code == 2


def test_a_rollout_is_printed_in_the_form_of_the_setting():
    assert str(Rollout.parse("etl_*,tag:x , !etl_old")) == "etl_*, tag:x, !etl_old"
