"""Airflow's states: their order, the colours of Airflow's own UI, and a sign for each.

The sign is there for whoever doesn't see the colour; several of Airflow's colours are the same grey.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Look(NamedTuple):
    """How a state is shown."""

    color: str
    sign: str


NO_STATUS = "no_status"

# In the order of airflow.utils.state.TaskInstanceState.
TASK_STATES = (
    "removed",
    "scheduled",
    "queued",
    "running",
    "success",
    "restarting",
    "failed",
    "up_for_retry",
    "up_for_reschedule",
    "upstream_failed",
    "skipped",
    "deferred",
    "awaiting_input",
)

# In the order of airflow.utils.state.DagRunState.
RUN_STATES = ("queued", "running", "success", "failed")

LOOKS: Mapping[str, Look] = {
    "removed": Look("#45556c", "–"),
    "scheduled": Look("#71717b", "○"),
    "queued": Look("#79716b", "◔"),
    "running": Look("#0891b2", "▸"),
    "success": Look("#16a34a", "✓"),
    "restarting": Look("#7f22fe", "↺"),
    "failed": Look("#dc2626", "✗"),
    "up_for_retry": Look("#ca8a04", "↻"),
    "up_for_reschedule": Look("#0084d1", "↷"),
    "upstream_failed": Look("#e17100", "⊘"),
    "skipped": Look("#db2777", "»"),
    "deferred": Look("#9333ea", "‖"),
    "awaiting_input": Look("#ea580c", "?"),
    NO_STATUS: Look("#9f9fa9", "·"),
}

# The first of these that any of several instances is in is the state of them all, as in Airflow's grid.
PRIORITY = (
    "failed",
    "upstream_failed",
    "up_for_retry",
    "up_for_reschedule",
    "running",
    "restarting",
    "deferred",
    "awaiting_input",
    "queued",
    "scheduled",
    NO_STATUS,
    "success",
    "skipped",
    "removed",
)

# Left to right in a bar of progress: what is done, what goes on, what is to come.
_PROGRESS = (
    "success",
    "skipped",
    "removed",
    "failed",
    "upstream_failed",
    "running",
    "restarting",
    "deferred",
    "awaiting_input",
    "up_for_retry",
    "up_for_reschedule",
    "queued",
    "scheduled",
    NO_STATUS,
)

FINAL_RUN_STATES = frozenset({"success", "failed"})


def look(state: str) -> Look:
    """Return how ``state`` is shown; a state this package doesn't know yet looks like one without status."""
    return LOOKS.get(state, LOOKS[NO_STATUS])


def words(state: str) -> str:
    """Return ``state`` for people.

    >>> words("up_for_retry")
    'up for retry'
    """
    return state.replace("_", " ")


def overall(counts: Mapping[str, int]) -> str:
    """Return the one state that stands for several.

    >>> overall({"success": 37, "running": 13})
    'running'
    """
    return next(iter(in_order(counts)), NO_STATUS)


def by_progress(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts above zero, what is done first."""
    return dict(sorted(in_order(counts).items(), key=lambda item: _rank(item[0])))


def _rank(state: str) -> int:
    return _PROGRESS.index(state) if state in _PROGRESS else len(_PROGRESS)


def in_order(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts above zero, what matters most first."""
    known = {state: counts[state] for state in PRIORITY if counts.get(state)}
    return known | {state: n for state, n in counts.items() if n and state not in known}
