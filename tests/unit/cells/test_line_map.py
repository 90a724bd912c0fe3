from __future__ import annotations

import os

from temporal_airflow_nb.cells.line_map import (
    CellLine,
    find_cell,
    find_cell_in_file,
    find_dag_cell,
    format_magic_line,
    format_marker,
    lines_around,
    replace_files_with_cells,
)

CARRIED = f"""# The DAG of In [7] and what it uses of other cells.

import math

{format_marker(3, 5)}
def area(r):
    return math.pi * r

{format_marker(7, 2)}
area(1)
"""
ALONE = f"{format_magic_line(7)}\nx = 1\ny = 2\n"


def test_lines_of_a_file_of_one_cell_map_to_that_cell():
    assert [find_cell(ALONE, line) for line in (1, 2, 3)] == [CellLine(7, 1), CellLine(7, 2), CellLine(7, 3)]
    assert find_dag_cell(ALONE) == 7


def test_lines_from_other_cells_map_to_those_cells():
    assert str(find_cell(CARRIED, 6)) == "In [3], line 5"
    assert find_cell(CARRIED, 7) == CellLine(3, 6)
    assert find_cell(CARRIED, 10) == CellLine(7, 2)
    assert find_dag_cell(CARRIED) == 7


def test_generated_lines_map_to_no_cell():
    assert [find_cell(CARRIED, line) for line in (0, 1, 3, 5, 9, 99)] == [None] * 6
    assert find_cell("import math\nmath.pi\n", 2) is None
    assert find_dag_cell("import math\n") is None


def test_a_marker_in_the_middle_of_a_line_is_ignored():
    assert find_cell(f"x = 1  {format_marker(3, 1)}\ny = 2\n", 2) is None


def test_tracebacks_name_cells(tmp_path):
    path = tmp_path / "etl.py"
    path.write_text(CARRIED)
    trace = f'  File "{path}", line 7, in area\n  File "{tmp_path}/gone.py", line 7, in f'
    assert (
        replace_files_with_cells(trace)
        == f'  Cell In [3], line 6, in area\n  File "{tmp_path}/gone.py", line 7, in f'
    )


def test_a_file_changed_after_the_execution_maps_to_no_cell(tmp_path):
    path = tmp_path / "etl.py"
    path.write_text(CARRIED)
    os.utime(path, (1000, 1000))
    assert find_cell_in_file(str(path), 7, not_after=1001) == CellLine(3, 6)
    assert find_cell_in_file(str(path), 7, not_after=999) is None


def test_the_lines_around_a_line_are_of_the_same_cell():
    half = "# %% In [3], line 2\ndef half(n):\n    return n / 0\n"
    source = f"import math\n\n{half}\n\n# %% In [4], line 2\nx = half(1)\n"
    assert lines_around(source, 5, 3) == [(4, "def half(n):"), (5, "    return n / 0")]
    assert lines_around(source, 9, 3) == [(9, "x = half(1)")]
    assert lines_around("a\nb\nc\n", 1, 1) == [(1, "a"), (2, "b")]
    assert lines_around("", 4, 3) == []
