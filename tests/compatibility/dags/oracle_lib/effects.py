"""Traces of tasks and callbacks, in the file that the run's conf names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def leave(context: Any, text: str) -> None:
    """Append a line."""
    with Path(context["dag_run"].conf["effects"]).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def lines(context: Any) -> list[str]:
    """Return the lines so far."""
    path = Path(context["dag_run"].conf["effects"])
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def task_callback(event: str) -> Callable[[Any], None]:
    """Return a callback of a task that writes a line with its context."""

    def callback(context: Any) -> None:
        ti = context["ti"]
        error = context.get("exception")
        kind = error if isinstance(error, str) else type(error).__name__
        leave(
            context,
            f"{event} task={ti.task_id} map_index={ti.map_index} try={ti.try_number} exception={kind}",
        )

    return callback


def run_callback(event: str) -> Callable[[Any], None]:
    """Return a callback of a run that writes a line with its context."""

    def callback(context: Any) -> None:
        leave(context, f"{event} run={context['run_id']} reason={context.get('reason')}")

    return callback


def deadline_missed(context: Any, name: str) -> None:
    """Write a line; a callback of a deadline, which gets the run as plain data."""
    run = context["dag_run"]
    with Path(run["conf"]["effects"]).open("a", encoding="utf-8") as file:
        file.write(f"deadline {name} of {run['dag_id']}\n")


async def deadline_missed_async(context: Any, name: str) -> None:
    """Do the same in a triggerer."""
    deadline_missed(context, name)
