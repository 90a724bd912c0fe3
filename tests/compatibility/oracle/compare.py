"""Describes the differences between two results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MISSING = "nothing"
EXCERPT = 120


def compare(native: Mapping[str, Any], embedded: Mapping[str, Any]) -> list[str]:
    """Return the differences between two results of ``read_result``, one line each.

    Examples
    --------
    >>> compare({"tasks": {"a": {"state": "success"}}}, {"tasks": {"a": {"state": "failed"}}})
    ["tasks / a / state: natively 'success', here 'failed'"]
    """
    return list(_differences((), native, embedded))


def _differences(path: tuple[str, ...], native: Any, embedded: Any) -> Iterator[str]:
    if isinstance(native, Mapping) and isinstance(embedded, Mapping):
        for key in sorted({*native, *embedded}, key=str):
            yield from _differences((*path, str(key)), native.get(key, MISSING), embedded.get(key, MISSING))
    elif isinstance(native, list) and isinstance(embedded, list) and len(native) == len(embedded):
        for index, (one, other) in enumerate(zip(native, embedded, strict=True)):
            yield from _differences((*path, str(index)), one, other)
    elif native != embedded or type(native) is not type(embedded):
        native, embedded = _excerpts(native, embedded)
        yield f"{' / '.join(path)}: natively {native}, here {embedded}"


def _excerpts(native: Any, embedded: Any) -> tuple[str, str]:
    """Return both values as text; of long texts the parts around the first difference."""
    one, other = repr(native), repr(embedded)
    if max(len(one), len(other)) <= 2 * EXCERPT:
        return one, other
    pairs = zip(one, other, strict=False)
    same = next(
        (index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other))
    )
    start = max(0, same - EXCERPT // 2)
    one, other = (f"…{text[start : start + EXCERPT]}…" for text in (one, other))
    return one, other


def report(name: str, differences: list[str]) -> str:
    """Return the message of a failed test."""
    return "\n".join([f"{name}: {len(differences)} differences from native Airflow", *differences])
