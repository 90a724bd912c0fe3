"""The order of what two runs have."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any


def merged_order(first: Iterable[Hashable], second: Iterable[Hashable]) -> list[Any]:
    """Return what is in either, in the order of the first; what only the second has follows what it follows there.

    >>> merged_order(["a", "b", "d"], ["a", "c", "d", "e"])
    ['a', 'c', 'b', 'd', 'e']
    """
    keys = dict.fromkeys(first)
    following: dict[Any, list[Any]] = {}
    before: Any = None
    for key in second:
        if key in keys:
            before = key
        else:
            following.setdefault(before, []).append(key)
    merged = following.pop(None, [])
    for key in keys:
        merged += [key, *following.get(key, ())]
    return merged
