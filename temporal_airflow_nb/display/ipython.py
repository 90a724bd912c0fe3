"""What is asked of IPython, where there is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from temporal_airflow_nb.display import notices

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from temporal_airflow_nb.checks.preflight import Finding


class ShowsProgress(Protocol):
    """An output that shows what is being done before there is a run, such as a live grid."""

    def busy(self, title: str) -> AbstractContextManager[None]:
        """Show ``title`` and the seconds that the block takes."""


def current_shell() -> InteractiveShell | None:
    """Return the shell that this process runs in, None outside IPython."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def namespace(shell: InteractiveShell | None) -> Mapping[str, Any]:
    """Return what the cells have defined."""
    return shell.user_ns if shell is not None else {}


def history(shell: InteractiveShell | None) -> Sequence[str]:
    """Return the cells that were executed as they were entered, by execution count."""
    manager = getattr(shell, "history_manager", None)
    return manager.input_hist_raw if manager is not None else ()


def execution_count(shell: InteractiveShell | None) -> int:
    """Return the number of the cell that is executed: some versions of IPython count on before they execute it."""
    return shell.displayhook.prompt_count if shell is not None else 0


@contextmanager
def busy(grid: ShowsProgress | None, title: str) -> Iterator[None]:
    """Show for how long the block takes."""
    if grid is None:
        yield
        return
    with grid.busy(title):
        yield


def say(shell: InteractiveShell | None, text: str) -> None:
    """Show a line in the present cell."""
    if shell is not None:
        shell.display_pub.publish(data={"text/plain": text}, metadata={})


def show_findings(shell: InteractiveShell | None, findings: Sequence[Finding]) -> None:
    """Show what isn't wrong, but may be."""
    if not findings:
        return
    if shell is None:
        print(notices.findings_text(findings), file=sys.stderr)
        return
    shell.display_pub.publish(
        data={"text/html": notices.findings_html(findings), "text/plain": notices.findings_text(findings)},
        metadata={},
    )
