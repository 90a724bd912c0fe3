"""An SVG picture that notebooks show."""

from __future__ import annotations

import os
from pathlib import Path


class Picture:
    """An SVG picture. A terminal shows its text instead.

    Attributes
    ----------
    svg : str
        The ``<svg>`` element. It is self-contained: no scripts, style sheets or other files.

    Examples
    --------
    >>> run.plot().save("gantt.svg")                                # doctest: +SKIP
    """

    def __init__(self, svg: str, text: str) -> None:
        self.svg = svg
        self._text = text

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a file."""
        Path(path).write_text(self.svg, encoding="utf-8")

    def __repr__(self) -> str:
        return self._text

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        # Inside the page, unlike an image, it takes the text colour of the theme.
        return f"<div>{self.svg}</div>"
