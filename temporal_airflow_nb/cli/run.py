"""``temporal-airflow run``: a DAG file run in the foreground, its grid in the terminal."""

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
from temporal_airflow_nb.display.model import Grid, Instance, duration, grid
from temporal_airflow_nb.display.states import look, words
from temporal_airflow_nb.display.terminal import renderable
from temporal_airflow_nb.display.text import headline
from temporal_airflow_nb.errors import DagFileError, InvalidInputError, TemporalAirflowError
from temporal_airflow_nb.stack.local import LocalStack

if TYPE_CHECKING:
    from temporal_airflow_nb.dag_runs.run import Run
    from temporal_airflow_nb.messages.runs import RunSnapshot

LEFT_RUNNING = 130

_TASK_KEYS = ("task_id", "map_index", "state", "try_number", "start_date", "end_date")
_UNTOLD = frozenset({"no_status", "scheduled", "queued"})
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
            if not _wants_to_cancel(console):
                return _leave(run, stack, console)
            run.cancel()
            follow(run, console)
        return _report(run, stack, console, as_json)


def as_data(snapshot: RunSnapshot) -> dict[str, object]:
    """Return what ``--output json`` prints of a run."""
    tasks = [{key: dict(task)[key] for key in _TASK_KEYS} for task in snapshot["tasks"]]
    names = ("dag_id", "run_id", "workflow_id", "state")
    return {key: dict(snapshot)[key] for key in names} | {"tasks": tasks}


def changes(before: Mapping[str, Instance], after: Grid) -> Iterator[str]:
    """Yield a line for each task instance whose state or try is another than before."""
    for instance in after.instances:
        known = before.get(instance.name)
        if instance.state in _UNTOLD or (
            known and (known.state, known.try_number) == (instance.state, instance.try_number)
        ):
            continue
        details = [duration(instance.seconds)] if instance.end else []
        if instance.try_number > 1 or instance.state in ("failed", "up_for_retry"):
            details.append(f"try {instance.try_number} of {max(instance.max_tries + 1, instance.try_number)}")
        shown = ", ".join(part for part in details if part)
        yield f"{look(instance.state).sign} {instance.name} {words(instance.state)}" + (
            f" ({shown})" if shown else ""
        )


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what needs no stack to be refused."""
    if arguments.mode == "standalone":
        raise InvalidInputError(
            "Standalone mode, without any Airflow database, is not available in this version.",
            hint="Use deep mode: leave --mode out, or give --mode deep.",
        )
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
    """Show the run until it ends."""
    latest = run.snapshot()
    told: dict[str, Instance] = {}

    def listen(snapshot: RunSnapshot) -> None:
        nonlocal latest
        latest = snapshot
        if not console.is_terminal:
            tell()

    def tell() -> None:
        shown = grid(latest)
        for line in changes(told, shown):
            console.print(Text(line), soft_wrap=True)
        told.update((instance.name, instance) for instance in shown.instances)

    def picture() -> Any:
        return renderable(grid(latest), width=console.width, height=console.height)

    unsubscribe = run.subscribe(listen)
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
    console.print("\nCancel the run, or leave it running? \\[c/L] ", end="")
    try:
        return sys.stdin.readline().strip().lower() in ("c", "cancel")
    except KeyboardInterrupt:
        return False


def _submitted(run: Run, stack: LocalStack, console: Console, as_json: bool) -> int:
    snapshot = run.snapshot()
    if as_json:
        print(json.dumps(as_data(snapshot), indent=2))
    say(console, headline(grid(snapshot)))
    _say_links(console, snapshot)
    if stack.started_here:
        say(console, f"The stack in {stack.home} goes on; `temporal-airflow down` ends it.")
    return 0


def _leave(run: Run, stack: LocalStack, console: Console) -> int:
    stack.leave_running()
    say(console, f"\n{run.dag_id} {run.run_id} goes on, and so does the stack in {stack.home}.")
    try:
        _say_links(console, run.snapshot())
    except TemporalAirflowError as error:
        say(console, str(error))
    say(console, "To wait for it again, in Python:")
    say(console, "  import temporal_airflow_nb as ta")
    say(console, f"  stack = ta.LocalStack({str(stack.home)!r}).start()")
    say(console, f"  ta.Run(stack.client, {run.dag_id!r}, {run.run_id!r}).wait()")
    say(console, "`temporal-airflow down` ends the stack.")
    return LEFT_RUNNING


def _report(run: Run, stack: LocalStack, console: Console, as_json: bool) -> int:
    snapshot = run.snapshot()
    final = grid(snapshot)
    if as_json:
        print(json.dumps(as_data(snapshot), indent=2), flush=True)
    elif console.is_terminal:
        console.print(renderable(final, width=console.width, height=max(_ROWS, console.height)))
    for instance in final.failures[:_FAILURES]:
        _say_why(console, run, instance)
    if len(final.failures) > _FAILURES:
        say(console, f"\n… and {len(final.failures) - _FAILURES} more failed.")
    say(console, headline(final))
    _say_links(console, snapshot)
    if stack.started_here:
        say(console, "`temporal-airflow up` brings the links back: the stack ends with this command.")
    return 0 if snapshot["state"] == "success" else 1


def _say_why(console: Console, run: Run, instance: Instance) -> None:
    say(console, f"\n✗ {instance.name} failed at try {instance.try_number}. The end of its log:")
    try:
        log = run.logs(instance.task_id, map_index=instance.map_index)
    except TemporalAirflowError as error:
        say(console, f"  {error}")
        return
    for line in log.splitlines()[-_LOG_LINES:]:
        say(console, f"  {line}")


def _say_links(console: Console, snapshot: RunSnapshot) -> None:
    for name, url in (snapshot["links"]).items():
        say(console, f"{name.capitalize()}: {url}")


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(Text(line), soft_wrap=True)
