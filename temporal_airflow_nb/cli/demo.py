"""``python -m temporal_airflow_nb.cli.demo``: execute the quickstart notebook and print its run's grid."""

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
"""Tag of a cell in whose place the kernel is killed."""
_CELL_TIMEOUT = 300
# The path of a socket has 107 bytes at most.
_SHORT = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute the notebook; returns 0 if its run succeeded, 1 if not."""
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
    """Return a notebook executed in a kernel of its own. Its stack, in the default folder, ends with its last user.

    A cell with the tag ``kills-the-kernel`` isn't executed: there the kernel gets SIGKILL, and the cells below it a new
    one.

    Raises
    ------
    InvalidInputError
        There is no such notebook.
    TemporalAirflowError
        A cell raised an error.
    """
    import nbformat
    from nbclient.exceptions import CellExecutionError

    if not path.is_file():
        raise InvalidInputError(
            f"There is no notebook {path}.", hint="Run the demo in a clone of the repository."
        )
    # The kernel works in the notebook's folder; the stack's folder is the one that commands typed here use.
    os.environ[HOME_VARIABLE] = str(home_path())
    notebook = nbformat.read(path, as_version=4)
    try:
        for life in _lives(notebook):
            _execute_in_a_kernel(notebook, life, path.parent)
    except CellExecutionError as error:
        raise TemporalAirflowError(f"The notebook {path} failed.\n{error}") from None
    finally:
        stack = LocalStack(linger=_CELL_TIMEOUT)
        stack.join()
        stack.leave()
    return notebook


def _lives(notebook: NotebookNode) -> list[range]:
    """Return which cells are each kernel's; one that is killed has the cell that kills it as its last."""
    ends = [index + 1 for index, cell in enumerate(notebook.cells) if _kills(cell)]
    return [range(*span) for span in itertools.pairwise([0, *ends, len(notebook.cells)])]


def _kills(cell: NotebookNode) -> bool:
    return KILL in cell.metadata.get("tags", ())


def _execute_in_a_kernel(notebook: NotebookNode, life: range, folder: Path) -> None:
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
            for index in life:
                cell = notebook.cells[index]
                if _kills(cell):
                    cell.execution_count, cell.outputs = None, []
                    _kill(client)
                else:
                    client.execute_cell(cell, index)


def _short_folder() -> str:
    """Return the folder for temporary files, or a shorter one where a socket's path would be too long."""
    folder = gettempdir()
    return folder if len(folder) <= _SHORT else "/tmp"


def _kill(client: Any) -> None:
    """Have the kernel die as it does when the system runs out of memory."""
    kernel = client.km.provisioner.process
    os.kill(kernel.pid, signal.SIGKILL)
    kernel.wait()


def last_grid(notebook: NotebookNode) -> tuple[str, str]:
    """Return the state of the last run that a notebook shows, and its grid as text."""
    for cell in reversed(notebook.cells):
        for output in reversed(cell.get("outputs", ())):
            facts: dict[str, Any] = output.get("metadata", {}).get(METADATA, {})
            if facts:
                return facts["state"], output["data"]["text/plain"]
    return "", "The notebook shows no run."


def save(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook with its outputs, without what differs from machine to machine, or each time."""
    import nbformat

    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}
    text = nbformat.writes(notebook).replace(str(home_path()), DEFAULT_HOME)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
