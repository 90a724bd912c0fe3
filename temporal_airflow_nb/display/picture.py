"""A picture that a notebook shows."""

from __future__ import annotations

import os
from pathlib import Path


class Picture:
    """An SVG picture, shown by notebooks; in a terminal, its words.

    Attributes
    ----------
    svg : str
        The ``<svg>`` element. It stands alone: no script, no style sheet, nothing fetched.

    Examples
    --------
    >>> run.plot().save("gantt.svg")                                # doctest: +SKIP
    """

    def __init__(self, svg: str, words: str) -> None:
        self.svg = svg
        self._words = words

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a file."""
        Path(path).write_text(self.svg, encoding="utf-8")

    def __repr__(self) -> str:
        return self._words

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        # As part of the page, unlike an image, it has the colours of the theme.
        return f"<div>{self.svg}</div>"
