"""Values by key that tell what has changed since somebody looked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import Any


class Changes:
    """
    Values by key, each with the number of the look at the database that found it.

    To tell what is new costs as much as there is new, not as much as there is.

    Examples
    --------
    >>> changes = Changes()
    >>> changes.put("a", 1, look=1), changes.put("b", 1, look=1), changes.put("a", 2, look=2)
    (True, True, True)
    >>> list(changes.since(1))
    [('a', 2)]
    """

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self._found: dict[Any, int] = {}
        self._lost: dict[Any, int] = {}

    def put(self, key: Hashable, value: Any, look: int) -> bool:
        """Note a value; return whether it is news."""
        if key in self.values and self.values[key] == value:
            return False
        self.values[key] = value
        # The latest is last, so that a search can begin there.
        self._found.pop(key, None)
        self._found[key] = look
        self._lost.pop(key, None)
        return True

    def keep(self, keys: Iterable[Hashable], look: int) -> None:
        """Drop every other key."""
        for key in self.values.keys() - set(keys):
            del self.values[key], self._found[key]
            self._lost[key] = look

    def since(self, look: int) -> Iterator[tuple[Any, Any]]:
        """Yield the keys that were found after a look, the latest first, with their values."""
        for key in reversed(self._found):
            if self._found[key] <= look:
                return
            yield key, self.values[key]

    def lost_since(self, look: int) -> list[Any]:
        """Return the keys that were dropped after a look."""
        return [key for key, lost in self._lost.items() if lost > look]


def cells_since(look: int, cells: Changes, runs: Changes) -> dict[str, dict[str, Any]]:
    """Return the counts by state that have changed after a look, by run and task; those of lost tasks are empty."""
    changed: dict[str, dict[str, Any]] = defaultdict(dict)
    for (run_id, task_id), counts in cells.since(look):
        changed[run_id][task_id] = counts
    for run_id, task_id in cells.lost_since(look):
        if run_id in runs.values:
            changed[run_id][task_id] = {}
    return dict(changed)
