"""Airflow's states: their order, the colours of Airflow's own UI, and a sign for each.

The signs are for readers who can't see the colours; several of Airflow's colours are the same grey.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class StateStyle(NamedTuple):
    """The colour and the sign of a state."""

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

STATE_STYLES: Mapping[str, StateStyle] = {
    "removed": StateStyle("#45556c", "–"),
    "scheduled": StateStyle("#71717b", "○"),
    "queued": StateStyle("#79716b", "◔"),
    "running": StateStyle("#0891b2", "▸"),
    "success": StateStyle("#16a34a", "✓"),
    "restarting": StateStyle("#7f22fe", "↺"),
    "failed": StateStyle("#dc2626", "✗"),
    "up_for_retry": StateStyle("#ca8a04", "↻"),
    "up_for_reschedule": StateStyle("#0084d1", "↷"),
    "upstream_failed": StateStyle("#e17100", "⊘"),
    "skipped": StateStyle("#db2777", "»"),
    "deferred": StateStyle("#9333ea", "‖"),
    "awaiting_input": StateStyle("#ea580c", "?"),
    NO_STATUS: StateStyle("#9f9fa9", "·"),
}

# The state of several instances together is the first of these that one of them has, as in Airflow's grid.
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

# From left to right in a progress bar: finished, in progress, to come.
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


def get_style(state: str) -> StateStyle:
    """Return the style of a state; an unknown state has that of "no status"."""
    return STATE_STYLES.get(state, STATE_STYLES[NO_STATUS])


def format_state(state: str) -> str:
    """Return a state in words.

    >>> format_state("up_for_retry")
    'up for retry'
    """
    return state.replace("_", " ")


def combine_states(counts: Mapping[str, int]) -> str:
    """Return the state that represents several instances.

    >>> combine_states({"success": 37, "running": 13})
    'running'
    """
    return next(iter(sort_by_priority(counts)), NO_STATUS)


def sort_by_progress(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts above zero, finished states first."""
    return dict(sorted(sort_by_priority(counts).items(), key=lambda item: _rank(item[0])))


def _rank(state: str) -> int:
    return _PROGRESS.index(state) if state in _PROGRESS else len(_PROGRESS)


def sort_by_priority(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts above zero, the most important states first."""
    known = {state: counts[state] for state in PRIORITY if counts.get(state)}
    return known | {state: n for state, n in counts.items() if n and state not in known}
