"""What every client of a stack can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Snapshot = Mapping[str, Any]


class Client(Protocol):
    """What a run needs of a client."""

    patience: float
    address: str
    production: str | None

    def call(self, op: str, *, timeout: float = ..., **body: Any) -> dict[str, Any]:
        """Call an operation."""
