"""Turn a cell into a DAG file, check it, and have the stack run it.

``run_cell`` and ``write_dag`` call this in the thread that executes cells. The order matters: everything that can be
checked without the stack comes first, so that a mistake in the cell starts nothing and stores nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from temporal_airflow_nb.api import export
from temporal_airflow_nb.cells import prepare
from temporal_airflow_nb.cells.line_map import find_cell, find_dag_cell
from temporal_airflow_nb.checks.preflight import Finding
from temporal_airflow_nb.dag_runs.backfill_runs import BackfillRuns
from temporal_airflow_nb.dag_runs.run import Run
from temporal_airflow_nb.display import ipython
from temporal_airflow_nb.errors import DagFileError, InvalidInputError, PreflightError, UnavailableHereError
from temporal_airflow_nb.live_grid import live
from temporal_airflow_nb.messages.requests import Backfill, SubmitFile
from temporal_airflow_nb.stack import current

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from temporal_airflow_nb.messages.files import FindingRow, Submitted
    from temporal_airflow_nb.messages.requests import WorkerLost
    from temporal_airflow_nb.stack.base import Stack


@dataclass(frozen=True)
class CellOptions:
    """The options of a cell; see :func:`temporal_airflow_nb.run_cell`."""

    name: str | None = None
    dag_id: str | None = None
    conf: Mapping[str, Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    run: bool = True
    wait: bool = False
    backfill: tuple[str, str] | None = None
    write_to: Path | None = None
    force: bool = False
    view: str = "grid"
    worker_lost: str | None = None
    home: str | None = None


def submit(
    cell: str,
    options: CellOptions,
    shell: InteractiveShell | None,
    created: Callable[[Run | BackfillRuns], None] | None = None,
) -> Run | BackfillRuns | None:
    """Submit a cell, and show findings and the run in the output of the current cell.

    ``created`` is called with the run or runs as soon as they exist.

    Returns
    -------
    Run, BackfillRuns or None
        The run, the runs of a backfill, or None if the cell is only stored.

    Raises
    ------
    PreflightError
        The DAG can't be run as it is. Nothing has been started or stored.
    """
    prepared = _prepare(cell, options.name, shell)
    stack = current.current(options.home)
    # A file that can't be written is an error before the stack is started.
    if options.write_to is not None:
        export.check(options.write_to, prepared.plain, force=options.force)
    shows = shell is not None and options.run and options.view != "none"
    grid = live.LiveGrid(shell) if shows else None
    _start(stack, grid, shell)
    if refusal := stack.client.refusals.get("submit_file"):
        raise UnavailableHereError(
            refusal.reason,
            hint="Write the cell with `ta.write_dag(…)` to a DAG folder of that Airflow, or connect to its database.",
            op="submit_file",
        )
    answer = _submit(prepared, options, stack, grid)
    client = stack.client
    runs = BackfillRuns(Run(client, answer["dag_id"], run_id) for run_id in answer["run_ids"])
    result = runs if options.backfill is not None or not runs else runs[0]
    # Before the wait, which the user may interrupt: the variable `run` is set then.
    if runs and created is not None:
        created(result)
    found = [_in_cell(finding, prepared.source) for finding in answer["findings"]]
    ipython.show_findings(shell, _distinct([*prepared.findings, *found]))
    if options.write_to is not None:
        export.write(options.write_to, prepared.plain)
    if not runs:
        ipython.show_text(shell, f"Stored {', '.join(answer['dag_ids'])} without a run.")
        return None
    if grid is not None:
        grid.address = client.address
        grid.follow(runs[0], options.view)
    if options.wait:
        result.wait()
    return result


def write(source: str, path: Path, *, force: bool) -> Path:
    """Write a cell's DAG as a plain Airflow file; see :func:`temporal_airflow_nb.write_dag`."""
    prepared = _prepare(source, None, ipython.current_shell())
    export.check(path, prepared.plain, force=force)
    export.write(path, prepared.plain)
    return path


def _prepare(cell: str, name: str | None, shell: InteractiveShell | None) -> prepare.PreparedCell:
    prepared = prepare.prepare(
        cell,
        shell_ns=ipython.namespace(shell),
        history=ipython.history(shell),
        execution_count=ipython.execution_count(shell),
        name=name,
        folder=Path.cwd(),
    )
    if not prepared.may_make_dags:
        raise DagFileError(
            "The cell defines no DAG.", hint="Write `with DAG(...)`, or call a function that has `@dag`."
        )
    _refuse(prepared.findings)
    return prepared


def _start(stack: Stack, grid: live.LiveGrid | None, shell: InteractiveShell | None) -> None:
    is_running = getattr(stack, "is_running", True)
    if grid is None and not is_running:
        ipython.show_text(shell, "Starting the stack …")
    with ipython.show_progress(grid, "Connecting to the stack" if is_running else "Starting the stack"):
        current.start(stack)


def _submit(
    prepared: prepare.PreparedCell, options: CellOptions, stack: Stack, grid: live.LiveGrid | None
) -> Submitted:
    client = stack.client
    # The file stays in place until the gateway has answered; if the gateway refuses it, the former text is restored.
    with ipython.show_progress(grid, "Submitting"), _placed_file(prepared, options, stack) as path:
        try:
            return client.submit_file(
                SubmitFile(
                    str(path),
                    options.dag_id,
                    launch=options.run,
                    conf=None if options.conf is None else dict(options.conf),
                    params=dict(options.params) or None,
                    # The gateway refuses other values.
                    worker_lost=cast("WorkerLost | None", options.worker_lost),
                    backfill=None if options.backfill is None else Backfill(*options.backfill),
                )
            )
        except PreflightError as error:
            found = [_in_cell(finding, prepared.source) for finding in error.facts["findings"]]
            raise PreflightError.of(found) from None


def _placed_file(
    prepared: prepare.PreparedCell, options: CellOptions, stack: Stack
) -> AbstractContextManager[Path]:
    """Put the cell's file where the Airflow of the stack finds it."""
    home: Path | None = getattr(stack, "home", None)
    if home is not None:
        return prepare.stored_file(home, prepared.file_name, prepared.source)
    if options.write_to is None:
        raise InvalidInputError(
            "This Airflow only runs files of its own DAG folders.",
            hint="Write the cell to one of these folders with `--write-to PATH`.",
        )
    # The Airflow of the cluster parses this file: it stays even if the gateway refuses it.
    export.write(options.write_to, prepared.plain)
    return nullcontext(options.write_to.absolute())


def _refuse(findings: Sequence[Finding]) -> None:
    if wrong := [finding for finding in findings if finding.level == "error"]:
        raise PreflightError.of(wrong)


def _in_cell(data: FindingRow, source: str) -> Finding:
    """Return a finding of the gateway about the file, with the line of the cell."""
    finding = Finding(**data)
    if finding.line is None:
        return finding
    place = find_cell(source, finding.line)
    if place is None or place.execution_count == find_dag_cell(source):
        return replace(finding, line=place.line if place is not None else None)
    return replace(finding, line=None, message=f"{place}: {finding.message}")


def _distinct(findings: Sequence[Finding]) -> list[Finding]:
    """Remove findings that both the gateway and the checks of this process have reported."""
    known = {(finding.code, finding.line, finding.task_id): finding for finding in reversed(findings)}
    placed = {finding.code for finding in findings if finding.line is not None}
    distinct = [
        finding for finding in known.values() if finding.line is not None or finding.code not in placed
    ]
    return sorted(distinct, key=lambda finding: finding.line or 0)
