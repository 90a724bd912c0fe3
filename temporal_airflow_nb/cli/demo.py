"""``python -m temporal_airflow_nb.cli.demo``: executes the quickstart notebook and prints its run's grid."""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.config.environment import DEFAULT_HOME, HOME_VARIABLE, home_path
from temporal_airflow_nb.errors import InvalidInputError, TemporalAirflowError
from temporal_airflow_nb.live_grid.live import METADATA
from temporal_airflow_nb.stack.local import LocalStack

if TYPE_CHECKING:
    from nbformat import NotebookNode

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"
KILL = "kills-the-kernel"
"""Tag of a cell that isn't executed: the kernel is killed instead."""
_CELL_TIMEOUT = 300
# A socket's path may have 107 bytes, and the kernel's socket is two folders below the folder for temporary files.
_MAX_FOLDER_LENGTH = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute the notebook; return 0 if its run succeeded, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m temporal_airflow_nb.cli.demo", description=__doc__)
    parser.add_argument("notebook", nargs="?", type=Path, default=NOTEBOOK)
    parser.add_argument("--save", action="store_true", help="keep the outputs in the notebook")
    parsed = parser.parse_args(arguments)
    try:
        executed = execute(parsed.notebook)
    except TemporalAirflowError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    if parsed.save:
        save(executed, parsed.notebook)
    state, text = last_grid(executed)
    print(text)
    return 0 if state == "success" else 1


def execute(path: Path) -> NotebookNode:
    """Execute a notebook in a kernel of its own and return it.

    Its stack, in the default folder, ends with its last user. A cell with the tag ``kills-the-kernel`` isn't executed:
    the kernel gets SIGKILL there, and the cells below run in a new one.

    Raises
    ------
    InvalidInputError
        The notebook doesn't exist.
    TemporalAirflowError
        A cell raised an error.
    """
    import nbformat
    from nbclient.exceptions import CellExecutionError

    if not path.is_file():
        raise InvalidInputError(
            f"There is no notebook {path}.", hint="Run the demo in a clone of the repository."
        )
    # The kernel's working directory is the notebook's folder. The state folder has to be the one that commands in this
    # process's working directory use.
    os.environ[HOME_VARIABLE] = str(home_path())
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    try:
        for cells in _cells_per_kernel(notebook):
            _execute_in_kernel(notebook, cells, path.parent)
    except CellExecutionError as error:
        raise TemporalAirflowError(f"The notebook {path} failed.\n{error}") from None
    # A kernel that was killed has left the stack running. This process takes a share in it and, as the last user, ends
    # it.
    finally:
        stack = LocalStack(linger=_CELL_TIMEOUT)
        stack.join()
        stack.leave()
    return notebook


def _cells_per_kernel(notebook: NotebookNode) -> list[range]:
    """Return the cells of each kernel, as ranges.

    A cell that kills its kernel is the last one of that kernel.
    """
    ends = [index + 1 for index, cell in enumerate(notebook.cells) if _kills_kernel(cell)]
    return [range(*span) for span in itertools.pairwise([0, *ends, len(notebook.cells)])]


def _kills_kernel(cell: NotebookNode) -> bool:
    return KILL in cell.metadata.get("tags", ())


def _execute_in_kernel(notebook: NotebookNode, cells: range, folder: Path) -> None:
    from nbclient import NotebookClient
    from traitlets.config import Config

    with TemporaryDirectory(prefix="temporal-airflow-", dir=_short_folder()) as sockets:
        client = NotebookClient(
            notebook,
            timeout=_CELL_TIMEOUT,
            resources={"metadata": {"path": str(folder)}},
            config=Config({"ConnectionFileMixin": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
        )
        with client.setup_kernel():
            for index in cells:
                cell = notebook.cells[index]
                if _kills_kernel(cell):
                    cell.execution_count, cell.outputs = None, []
                    _kill(client)
                else:
                    client.execute_cell(cell, index)


def _short_folder() -> str:
    """Return the folder for temporary files, or ``/tmp`` if its path is too long for a socket."""
    folder = gettempdir()
    return folder if len(folder) <= _MAX_FOLDER_LENGTH else "/tmp"


def _kill(client: Any) -> None:
    """Kill the kernel as the system does when it runs out of memory."""
    # A request to end would let the kernel end its stack.
    kernel = client.km.provisioner.process
    os.kill(kernel.pid, signal.SIGKILL)
    kernel.wait()


def last_grid(notebook: NotebookNode) -> tuple[str, str]:
    """Return the state and the grid, as text, of the last run in a notebook's outputs."""
    for cell in reversed(notebook.cells):
        for output in reversed(cell.get("outputs", ())):
            facts: dict[str, Any] = output.get("metadata", {}).get(METADATA, {})
            if facts:
                return facts["state"], output["data"]["text/plain"]
    return "", "The notebook shows no run."


def save(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook with its outputs, without values that differ between machines or between executions."""
    import nbformat

    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}
    text: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    text = text.replace(str(home_path()), DEFAULT_HOME)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
