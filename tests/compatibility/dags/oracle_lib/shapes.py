"""Values of a user's own classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass
class Point:
    """A dataclass."""

    x: int
    y: int


class Temperature:
    """A class that defines its own serialisation."""

    __version__: ClassVar[int] = 2

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def serialize(self) -> dict[str, float]:
        """Return the value to store."""
        return {"degrees": self.degrees}

    @staticmethod
    def deserialize(data: dict[str, float], version: int) -> Temperature:
        """Return the value from its stored form."""
        return Temperature(data["degrees"])


class Opaque:
    """A class that can't be serialised."""
