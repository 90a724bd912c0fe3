"""Tests that each row of docs/compatibility.md names existing tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.compatibility.oracle.catalog import CASES, EXAMPLES, EXCLUDED, RANDOM, SEMANTICS
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "compatibility.md"
STATES = {"same", "differs", "no"}


def rows():
    """Yield construct, state and tests of each row in the tables of constructs."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 3 and cells[1] in STATES:
            yield cells


ROWS = list(rows())


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_page_has_rows():
    assert len(ROWS) > 60


@pytest.mark.parametrize(("construct", "state", "tests"), ROWS, ids=[row[0] for row in ROWS])
def test_construct_names_its_tests(construct, state, tests):
    named = re.findall(r"`([^`]+)`", tests)
    assert named, f"{construct} names no test"
    for name in named:
        file, _, function = name.partition("::")
        path = ROOT / "tests" / file
        assert path.is_file(), f"{construct}: there is no tests/{file}"
        if function:
            assert function in functions_of(path), f"{construct}: no {function} in tests/{file}"
        elif path.parent.name == "dags":
            assert CASES[path.stem].recording.exists(), f"{construct}: tests/{file} isn't compared"


def test_the_counts_match_the_recordings():
    on_page = [
        (int(files), int(dags), int(differences))
        for files, dags, differences in re.findall(r"\| (\d+) \| (\d+) \| (\d+) \|", PAGE.read_text())
    ]
    counted = [
        (len(suite), sum(len(case.recorded()) for case in suite), 0)
        for suite in (EXAMPLES, SEMANTICS, RANDOM)
    ]
    assert on_page == counted


def test_the_page_gives_a_reason_for_each_excluded_example():
    on_page = dict(
        re.findall(r"^\| `((?:example|tutorial)_\w+)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    )
    assert on_page == EXCLUDED
