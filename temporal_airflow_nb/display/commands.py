"""Suggest what to call next on a task instance, as Python for the next cell."""

from __future__ import annotations

import json

_UNFINISHED = frozenset({"running", "queued", "scheduled", "deferred", "restarting", "awaiting_input"})


def suggest_commands(task_id: str, map_index: int = -1, state: str | None = None) -> list[str]:
    """Return the calls of :class:`~temporal_airflow_nb.Run` that are useful for a task instance in a state.

    >>> suggest_commands("parse", 3, "failed")
    ['run.logs("parse", map_index=3)', 'run.clear("parse", map_index=3, downstream=True)']
    """
    arguments = json.dumps(task_id, ensure_ascii=False)
    if map_index >= 0:
        arguments += f", map_index={map_index}"
    calls = [f"run.logs({arguments})"]
    if state in _UNFINISHED:
        calls.append("run.cancel()")
    elif state is not None:
        calls.append(f"run.clear({arguments}, downstream=True)")
    return calls
