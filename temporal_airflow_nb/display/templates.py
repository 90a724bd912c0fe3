"""Fill the fragments of ``templates/``. What isn't HTML already is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files
from string import Template


class Markup(str):
    """Text that is HTML already. What a front end gets is plain text: marimo takes no other kind of `str`."""

    __slots__ = ()


def fill(fragment: str, **values: object) -> Markup:
    """Return a fragment of the templates with its ``$names`` replaced by the values, escaped.

    >>> fill("place", text="a < b")
    '<div style="margin-top:4px;color:#767c85">a &lt; b</div>'
    """
    return Markup(
        _fragments()[fragment].substitute({name: markup_of(value) for name, value in values.items()})
    )


def joined(parts: Iterable[Markup]) -> Markup:
    """Return fragments one after another."""
    return Markup("\n".join(parts))


def markup_of(value: object) -> Markup:
    """Return a value as HTML: text is escaped."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


@lru_cache(maxsize=1)
def _fragments() -> dict[str, Template]:
    found: dict[str, Template] = {}
    for file in (files(__package__) / "templates").iterdir():
        if file.name.endswith(".html"):
            _, *parts = re.split(
                r"^<!-- fragment: (\w+) -->\n", file.read_text(encoding="utf-8"), flags=re.MULTILINE
            )
            found |= {
                name: Template(text.strip("\n")) for name, text in zip(parts[::2], parts[1::2], strict=True)
            }
    return found
