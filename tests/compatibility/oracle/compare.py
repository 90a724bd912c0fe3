"""Says in words how two results differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MISSING = "nothing"
EXCERPT = 120


def compare(native: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return the differences between two results of ``read_result``, one line each.

    Examples
    --------
    >>> compare({"tasks": {"a": {"state": "success"}}}, {"tasks": {"a": {"state": "failed"}}})
    ["tasks / a / state: natively 'success', here 'failed'"]
    """
    return list(_differences((), native, ours))


def _differences(path: tuple[str, ...], native: Any, ours: Any) -> Iterator[str]:
    if isinstance(native, Mapping) and isinstance(ours, Mapping):
        for key in sorted({*native, *ours}, key=str):
            yield from _differences((*path, str(key)), native.get(key, MISSING), ours.get(key, MISSING))
    elif isinstance(native, list) and isinstance(ours, list) and len(native) == len(ours):
        for index, (one, other) in enumerate(zip(native, ours, strict=True)):
            yield from _differences((*path, str(index)), one, other)
    elif native != ours or type(native) is not type(ours):
        native, ours = _excerpts(native, ours)
        yield f"{' / '.join(path)}: natively {native}, here {ours}"


def _excerpts(native: Any, ours: Any) -> tuple[str, str]:
    """Return both in words; of two long texts what surrounds the first difference."""
    one, other = repr(native), repr(ours)
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
    """Return a failed test's message."""
    return "\n".join([f"{name}: {len(differences)} differences from native Airflow", *differences])
