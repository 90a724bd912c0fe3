"""Says in words how two results differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MISSING = "nothing"


def compare(native: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return the differences between two results of :func:`tests.oracle.result.read_result`, one line each.

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
        yield f"{' / '.join(path)}: natively {native!r}, here {ours!r}"


def report(name: str, differences: list[str]) -> str:
    """Return a failed test's message."""
    return "\n".join([f"{name}: {len(differences)} differences from native Airflow", *differences])
