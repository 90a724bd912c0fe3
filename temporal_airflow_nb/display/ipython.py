"""Read from and write to the IPython shell, if there is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from temporal_airflow_nb.display import notices
from temporal_airflow_nb.printable_text import make_printable

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from temporal_airflow_nb.checks.preflight import Finding


class ProgressDisplay(Protocol):
    """An output that shows progress until a run exists, such as a live grid."""

    def show_progress(self, title: str) -> AbstractContextManager[None]:
        """Show ``title`` and the seconds that the block takes."""


def current_shell() -> InteractiveShell | None:
    """Return the shell of this process; None outside IPython."""
    # Without an import: outside notebooks, IPython would be loaded in vain.
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def namespace(shell: InteractiveShell | None) -> Mapping[str, Any]:
    """Return the names that the cells have defined, with their values."""
    return shell.user_ns if shell is not None else {}


def history(shell: InteractiveShell | None) -> Sequence[str]:
    """Return the source of the executed cells, by execution count."""
    manager = getattr(shell, "history_manager", None)
    return manager.input_hist_raw if manager is not None else ()


def execution_count(shell: InteractiveShell | None) -> int:
    """Return the execution count of the current cell."""
    # Not `shell.execution_count`: some versions of IPython increase it before they execute the cell.
    return shell.displayhook.prompt_count if shell is not None else 0


@contextmanager
def show_progress(grid: ProgressDisplay | None, title: str) -> Iterator[None]:
    """Show a title and the time that the block takes."""
    if grid is None:
        yield
        return
    with grid.show_progress(title):
        yield


def show_text(shell: InteractiveShell | None, text: str) -> None:
    """Show a line in the output of the current cell."""
    if shell is not None:
        shell.display_pub.publish(data={"text/plain": make_printable(text)}, metadata={})


def show_findings(shell: InteractiveShell | None, findings: Sequence[Finding]) -> None:
    """Show warnings about the current cell."""
    if not findings:
        return
    if shell is None:
        print(notices.format_findings(findings), file=sys.stderr)
        return
    shell.display_pub.publish(
        data={
            "text/html": notices.render_findings(findings),
            "text/plain": notices.format_findings(findings),
        },
        metadata={},
    )
