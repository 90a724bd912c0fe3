"""Merge two ordered sequences into one order."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any


def merge_order(first: Iterable[Hashable], second: Iterable[Hashable]) -> list[Any]:
    """Return the items of both, in the order of the first. Other items follow their predecessor in the second.

    >>> merge_order(["a", "b", "d"], ["a", "c", "d", "e"])
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
