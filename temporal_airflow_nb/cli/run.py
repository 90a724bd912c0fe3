"""``temporal-airflow run``: runs a DAG file and shows its grid in the terminal.

The main thread waits for the run's end, is called back with each snapshot meanwhile, and gets Ctrl-C. In a terminal, a
thread of rich draws the latest snapshot.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from temporal_airflow_nb.dag_runs.conf import parse_conf
from temporal_airflow_nb.display.model import Grid, Instance, build_grid, format_duration
from temporal_airflow_nb.display.states import format_state, get_style
from temporal_airflow_nb.display.terminal import render_run
from temporal_airflow_nb.display.text import format_headline
from temporal_airflow_nb.errors import DagFileError, InvalidInputError, TemporalAirflowError
from temporal_airflow_nb.printable_text import make_printable
from temporal_airflow_nb.stack.local import LocalStack

if TYPE_CHECKING:
    from temporal_airflow_nb.dag_runs.run import Run
    from temporal_airflow_nb.messages.runs import RunSnapshot

LEFT_RUNNING = 130

_TASK_KEYS = ("task_id", "map_index", "state", "try_number", "start_date", "end_date")
_NOT_REPORTED = frozenset({"no_status", "scheduled", "queued"})
_FAILURES = 3
_LOG_LINES = 15
_ROWS = 40


def run_command(arguments: argparse.Namespace) -> int:
    """Run a DAG file as ``temporal-airflow run`` does.

    Parameters
    ----------
    arguments
        ``path``, ``dag_id``, ``conf``, ``mode``, ``connections``, ``variables``, ``output``, ``no_wait``,
        ``home``.

    Returns
    -------
    int
        0 if the run succeeded, or was submitted with ``no_wait``; 1 if it failed; 130 if it was left running.
    """
    conf = parse_conf(arguments.conf)
    _check(arguments)
    as_json = arguments.output == "json"
    console = Console(stderr=as_json, highlight=False)
    stack = LocalStack(arguments.home, detach=arguments.no_wait)
    with _waiting(console, "Starting the stack" if not stack.is_running else "Connecting to the stack"):
        stack.start()
    # Entering attaches to the stack that was just started. Leaving ends it if this process has started it, unless it
    # is detached.
    with stack:
        with _waiting(console, "Submitting"):
            run = stack.run(
                arguments.path,
                dag_id=arguments.dag_id,
                conf=conf,
                mode=arguments.mode,
                connections=arguments.connections,
                variables=arguments.variables,
            )
        if arguments.no_wait:
            return _submitted(run, stack, console, as_json)
        try:
            follow(run, console)
        except KeyboardInterrupt:
            # After `_leave`, the stack is detached and goes on. Another Ctrl-C below ends the command and its stack.
            if not _wants_to_cancel(console):
                return _leave(run, stack, console)
            run.cancel()
            follow(run, console)
        return _report(run, stack, console, as_json)


def as_data(snapshot: RunSnapshot) -> dict[str, object]:
    """Return the data of a run that ``--output json`` prints."""
    tasks = [{key: dict(task)[key] for key in _TASK_KEYS} for task in snapshot["tasks"]]
    names = ("dag_id", "run_id", "workflow_id", "state")
    return {key: dict(snapshot)[key] for key in names} | {"tasks": tasks}


def changed_lines(before: Mapping[str, Instance], after: Grid) -> Iterator[str]:
    """Yield a line for each task instance whose state or try has changed."""
    for instance in after.instances:
        known = before.get(instance.name)
        if instance.state in _NOT_REPORTED or (
            known and (known.state, known.try_number) == (instance.state, instance.try_number)
        ):
            continue
        details = [format_duration(instance.seconds)] if instance.end else []
        if instance.try_number > 1 or instance.state in ("failed", "up_for_retry"):
            details.append(f"try {instance.try_number} of {max(instance.max_tries + 1, instance.try_number)}")
        shown = ", ".join(part for part in details if part)
        yield f"{get_style(instance.state).sign} {instance.name} {format_state(instance.state)}" + (
            f" ({shown})" if shown else ""
        )


def _check(arguments: argparse.Namespace) -> None:
    """Check the arguments that can be checked without a stack.

    Raises
    ------
    InvalidInputError
        A file doesn't exist.
    """
    path = Path(arguments.path).expanduser()
    if not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"There is no file {path}"
        raise DagFileError(f"{what}.", hint="Give the path of a DAG file.", path=str(path), line=None)
    for option in ("connections", "variables"):
        named = getattr(arguments, option)
        if named is not None and not Path(named).expanduser().is_file():
            raise InvalidInputError(f"--{option}: there is no file {named}.", hint="Check the path.")


@contextmanager
def _waiting(console: Console, what: str) -> Iterator[None]:
    if console.is_terminal:
        with console.status(f"{what} …"):
            yield
    else:
        yield


def follow(run: Run, console: Console) -> None:
    """Print the run's changes, or show its grid in a terminal, until the run ends."""
    latest = run.snapshot()
    reported: dict[str, Instance] = {}

    def on_snapshot(snapshot: RunSnapshot) -> None:
        nonlocal latest
        latest = snapshot
        if not console.is_terminal:
            report_changes()

    def report_changes() -> None:
        shown = build_grid(latest)
        for line in changed_lines(reported, shown):
            print_line(console, line)
        reported.update((instance.name, instance) for instance in shown.instances)

    # Called in rich's thread. `latest` is replaced as a whole, so that it needs no lock.
    def picture() -> Any:
        return render_run(build_grid(latest), width=console.width, height=console.height)

    unsubscribe = run.subscribe(on_snapshot)
    try:
        if console.is_terminal:
            with Live(get_renderable=picture, console=console, refresh_per_second=8, transient=True):
                run.wait()
        else:
            run.wait()
    finally:
        unsubscribe()


def _wants_to_cancel(console: Console) -> bool:
    if not (console.is_terminal and sys.stdin.isatty()):
        return False
    # A second Ctrl-C leaves the run, also while the question is printed.
    try:
        console.print("\nCancel the run, or leave it running? \\[c/L] ", end="")
        return sys.stdin.readline().strip().lower() in ("c", "cancel")
    except KeyboardInterrupt:
        return False


def _submitted(run: Run, stack: LocalStack, console: Console, as_json: bool) -> int:
    snapshot = run.snapshot()
    if as_json:
        print(json.dumps(as_data(snapshot), indent=2))
    print_line(console, format_headline(build_grid(snapshot)))
    _print_links(console, snapshot)
    if stack.started_here:
        print_line(console, f"The stack in {stack.home} goes on. `temporal-airflow down` ends it.")
    return 0


def _leave(run: Run, stack: LocalStack, console: Console) -> int:
    stack.leave_running()
    print_line(console, f"\n{run.dag_id} {run.run_id} goes on, and so does the stack in {stack.home}.")
    try:
        _print_links(console, run.snapshot())
    except TemporalAirflowError as error:
        print_line(console, str(error))
    print_line(console, "To wait for it again, in Python:")
    print_line(console, "  import temporal_airflow_nb as ta")
    print_line(console, f"  stack = ta.LocalStack({str(stack.home)!r}).start()")
    print_line(console, f"  ta.Run(stack.client, {run.dag_id!r}, {run.run_id!r}).wait()")
    print_line(console, "`temporal-airflow down` ends the stack.")
    return LEFT_RUNNING


def _report(run: Run, stack: LocalStack, console: Console, as_json: bool) -> int:
    snapshot = run.snapshot()
    final = build_grid(snapshot)
    if as_json:
        print(json.dumps(as_data(snapshot), indent=2), flush=True)
    elif console.is_terminal:
        console.print(render_run(final, width=console.width, height=max(_ROWS, console.height)))
    for instance in final.failures[:_FAILURES]:
        _print_failure(console, run, instance)
    if len(final.failures) > _FAILURES:
        print_line(console, f"\n… and {len(final.failures) - _FAILURES} more failed.")
    print_line(console, format_headline(final))
    _print_links(console, snapshot)
    if stack.started_here:
        print_line(console, "`temporal-airflow up` brings the links back: the stack ends with this command.")
    return 0 if snapshot["state"] == "success" else 1


def _print_failure(console: Console, run: Run, instance: Instance) -> None:
    print_line(console, f"\n✗ {instance.name} failed at try {instance.try_number}. The end of its log:")
    try:
        log = run.logs(instance.task_id, map_index=instance.map_index)
    except TemporalAirflowError as error:
        print_line(console, f"  {error}")
        return
    for line in log.splitlines()[-_LOG_LINES:]:
        print_line(console, f"  {line}")


def _print_links(console: Console, snapshot: RunSnapshot) -> None:
    for name, url in snapshot["links"].items():
        print_line(console, f"{name.capitalize()}: {url}")


def print_line(console: Console, line: str) -> None:
    """Print a line without rich's markup, line breaks, and control characters."""
    console.print(Text(make_printable(line)), soft_wrap=True)
