"""Suggests names that are similar to a misspelled one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def closest(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names that resemble a word, ignoring case, the most similar first.

    Examples
    --------
    >>> closest("ETL", ["etl", "report"])
    ['etl']
    """
    by_lower: dict[str, str] = {}
    for name in known:
        by_lower.setdefault(name.casefold(), name)
    return [by_lower[lower] for lower in get_close_matches(word.casefold(), by_lower, most)]


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return "Did you mean …?" with the known names that resemble a word, or else ``otherwise``.

    Examples
    --------
    >>> did_you_mean("etI", ["etl", "report"]), did_you_mean("x", ["etl"], "There are: etl.")
    ('Did you mean etl?', 'There are: etl.')
    """
    close = closest(word, known)
    return f"Did you mean {' or '.join(close)}?" if close else otherwise
