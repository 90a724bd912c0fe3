from __future__ import annotations

import pytest

from temporal_airflow_nb.dag_runs.conf import parse_conf
from temporal_airflow_nb.errors import InvalidConfError


def test_an_object_is_returned_as_it_is():
    assert parse_conf('{"day": "2026-01-01", "n": [1, null]}') == {"day": "2026-01-01", "n": [1, None]}
    assert parse_conf(None) is None


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ('{"day": 2026-01-01}', 13, "character 13"),
        ("{'day': 1}", 2, "character 2"),
        ("", 1, "character 1"),
        ('{"a": 1,\n "b": x}', 16, "line 2, character 7"),
    ],
)
def test_text_that_is_not_json_is_refused_with_its_position(text, position, said):
    with pytest.raises(InvalidConfError) as caught:
        parse_conf(text)
    assert caught.value.facts["position"] == position
    assert said in str(caught.value)
    assert "⟨here⟩" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "kind"),
    [("[1]", "a list"), ('"a"', "a string"), ("1.5", "a number"), ("true", "a boolean"), ("null", "null")],
)
def test_json_that_is_not_an_object_is_refused_by_its_kind(text, kind):
    with pytest.raises(InvalidConfError, match=f"conf is {kind}, not an object"):
        parse_conf(text)


def test_nan_and_infinity_are_refused():
    with pytest.raises(InvalidConfError, match="NaN"):
        parse_conf('{"a": NaN}')
