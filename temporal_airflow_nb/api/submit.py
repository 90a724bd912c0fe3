"""A cell on its way to a run: made a file, checked, and handed to the stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from temporal_airflow_nb.api import export
from temporal_airflow_nb.cells import prepare
from temporal_airflow_nb.cells.line_map import cell_of, own_cell
from temporal_airflow_nb.checks.preflight import Finding
from temporal_airflow_nb.dag_runs.run import Run
from temporal_airflow_nb.dag_runs.run_list import Runs
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
    """What is to be done with a cell; see :func:`temporal_airflow_nb.run_cell`."""

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
    created: Callable[[Run | Runs], None] | None = None,
) -> Run | Runs | None:
    """Do with a cell what is ordered, and show what comes of it in the shell's present output.

    ``created`` is called with the run, or runs, as soon as there are any.

    Returns
    -------
    Run, Runs or None
        The run, those of a backfill, or None for a cell that is stored alone.

    Raises
    ------
    PreflightError
        The DAG can't be run as it is. Nothing has been started or stored.
    """
    prepared = _prepared(cell, options.name, shell)
    stack = current.current(options.home)
    if options.write_to is not None:
        export.check(options.write_to, prepared.plain, force=options.force)
    shows = shell is not None and options.run and options.view != "none"
    grid = live.LiveGrid(shell) if shows else None
    _start(stack, grid, shell)
    if refusal := stack.client.refusals.get("submit_file"):
        raise UnavailableHereError(
            refusal.reason,
            hint="Have the cell written as a file, ta.write_dag(…), where that Airflow looks for DAGs, "
            "or connect to its database.",
            op="submit_file",
        )
    answer = _submitted(prepared, options, stack, grid)
    client = stack.client
    runs = Runs(Run(client, answer["dag_id"], run_id) for run_id in answer["run_ids"])
    result = runs if options.backfill is not None or not runs else runs[0]
    if runs and created is not None:
        created(result)
    found = [_in_cell(finding, prepared.source) for finding in answer["findings"]]
    ipython.show_findings(shell, _distinct([*prepared.findings, *found]))
    if options.write_to is not None:
        export.write(options.write_to, prepared.plain)
    if not runs:
        ipython.say(shell, f"Stored: {', '.join(answer['dag_ids'])}. Nothing runs.")
        return None
    if grid is not None:
        grid.address = client.address
        grid.follow(runs[0], options.view)
    if options.wait:
        result.wait()
    return result


def write(source: str, path: Path, *, force: bool) -> Path:
    """Write a cell's DAG as a plain Airflow file; see :func:`temporal_airflow_nb.write_dag`."""
    prepared = _prepared(source, None, ipython.current_shell())
    export.check(path, prepared.plain, force=force)
    export.write(path, prepared.plain)
    return path


def _prepared(cell: str, name: str | None, shell: InteractiveShell | None) -> prepare.PreparedCell:
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
            "the cell defines no DAG", hint="Write `with DAG(...)`, or call a function under @dag."
        )
    _refuse(prepared.findings)
    return prepared


def _start(stack: Stack, grid: live.LiveGrid | None, shell: InteractiveShell | None) -> None:
    running = getattr(stack, "is_running", True)
    if grid is None and not running:
        ipython.say(shell, "Starting the stack …")
    with ipython.busy(grid, "Connecting to the stack" if running else "Starting the stack"):
        current.start(stack)


def _submitted(
    prepared: prepare.PreparedCell, options: CellOptions, stack: Stack, grid: live.LiveGrid | None
) -> Submitted:
    client = stack.client
    with ipython.busy(grid, "Submitting"), _file(prepared, options, stack) as path:
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


def _file(prepared: prepare.PreparedCell, options: CellOptions, stack: Stack) -> AbstractContextManager[Path]:
    """Have the cell's file where the stack's Airflow finds it."""
    home: Path | None = getattr(stack, "home", None)
    if home is not None:
        return prepare.placed(home, prepared.file_name, prepared.source)
    if options.write_to is None:
        raise InvalidInputError(
            "This Airflow runs the files of its own DAG folders.",
            hint="Have the cell written to one of them: --write-to PATH.",
        )
    export.write(options.write_to, prepared.plain)
    return nullcontext(options.write_to.absolute())


def _refuse(findings: Sequence[Finding]) -> None:
    if wrong := [finding for finding in findings if finding.level == "error"]:
        raise PreflightError.of(wrong)


def _in_cell(data: FindingRow, source: str) -> Finding:
    """Return what the gateway has found in the file, at the cell's line."""
    finding = Finding(**data)
    if finding.line is None:
        return finding
    place = cell_of(source, finding.line)
    if place is None or place.execution_count == own_cell(source):
        return replace(finding, line=place.line if place is not None else None)
    return replace(finding, line=None, message=f"{place}: {finding.message}")


def _distinct(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out what the gateway has found as well as we."""
    known = {(finding.code, finding.line, finding.task_id): finding for finding in reversed(findings)}
    placed = {finding.code for finding in findings if finding.line is not None}
    distinct = [
        finding for finding in known.values() if finding.line is not None or finding.code not in placed
    ]
    return sorted(distinct, key=lambda finding: finding.line or 0)
