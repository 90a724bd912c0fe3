"""``temporal-airflow cancel``, ``clear`` and ``mark``: actions on a run of a stack or cluster."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from rich.console import Console

from temporal_airflow_nb.cli.run import as_data, follow, print_line
from temporal_airflow_nb.dag_runs.run import Run
from temporal_airflow_nb.display.model import build_grid
from temporal_airflow_nb.display.text import format_headline
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError
from temporal_airflow_nb.messages.requests import ClearTasks, MarkTasks

if TYPE_CHECKING:
    import argparse

    from temporal_airflow_nb.client.protocol import StackClient
    from temporal_airflow_nb.messages.runs import ActionResult
    from temporal_airflow_nb.stack.base import Stack

_CLUSTER = ("TEMPORAL_ADDRESS", "TEMPORAL_PROFILE")
_DONE = {"cancel": "Cancelled", "clear": "Cleared", "mark": "Changed"}
_SHOWN = 20


def act(arguments: argparse.Namespace) -> int:
    """
    Do the action that ``arguments`` name to a run, and print the result.

    Returns
    -------
    int
        0; 1 if ``wait`` is set and the run failed, unless the action is ``cancel``.
    """
    chosen = [getattr(arguments, name, None) for name in ("map_indexes", "upstream", "downstream")]
    if not getattr(arguments, "task_ids", None) and any(chosen):
        raise InvalidInputError(
            "--map-index, --upstream and --downstream need --task.", hint="Name a task: --task TASK_ID."
        )
    console = Console(stderr=arguments.output == "json", highlight=False)
    # The stack runs already: the end of the block leaves it running.
    with _find_stack(arguments) as stack:
        done = _carry_out(stack.client, arguments)
        run = Run(stack.client, done["dag_id"], done["run_id"])
        _print_done(console, arguments.op, done["affected"])
        if arguments.wait:
            follow(run, console)
        snapshot = run.snapshot()
    if arguments.output == "json":
        print(json.dumps(as_data(snapshot), indent=2), flush=True)
    print_line(console, format_headline(build_grid(snapshot)))
    failed = snapshot["state"] == "failed" and arguments.op != "cancel"
    return int(arguments.wait and failed)


def _carry_out(client: StackClient, arguments: argparse.Namespace) -> ActionResult:
    """Cancel, clear or mark, as the command line says."""
    if arguments.op == "cancel":
        return client.cancel_run(arguments.dag_id, arguments.run_id)
    if arguments.op == "clear":
        return client.clear_tasks(
            ClearTasks(
                arguments.dag_id,
                arguments.run_id,
                arguments.task_ids,
                arguments.map_indexes,
                upstream=arguments.upstream,
                downstream=arguments.downstream,
                only_failed=arguments.only_failed,
                latest_version=arguments.latest_version,
            )
        )
    return client.mark_tasks(
        MarkTasks(
            arguments.dag_id,
            arguments.run_id,
            arguments.state,
            arguments.task_ids,
            arguments.map_indexes,
            upstream=arguments.upstream,
            downstream=arguments.downstream,
        )
    )


def _print_done(console: Console, op: str, affected: list[tuple[str, int]]) -> None:
    names = [task_id if map_index < 0 else f"{task_id}[{map_index}]" for task_id, map_index in affected]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    print_line(
        console, f"{_DONE[op]}: {', '.join(names[:_SHOWN])}{more}" if names else f"{_DONE[op]}: no task"
    )


def _find_stack(arguments: argparse.Namespace) -> Stack:
    """Return the stack that runs in the state folder, else the configured cluster."""
    from temporal_airflow_nb.stack.connected import ConnectedStack
    from temporal_airflow_nb.stack.local import LocalStack

    stack = LocalStack(arguments.home)
    if stack.is_running:
        return stack
    if arguments.home is None and any(os.environ.get(name) for name in _CLUSTER):
        return ConnectedStack()
    raise ServiceUnavailableError(
        f"No stack runs in {stack.home}.",
        hint="Start it with `temporal-airflow up`, or set TEMPORAL_ADDRESS for a cluster.",
        service="worker",
    )
