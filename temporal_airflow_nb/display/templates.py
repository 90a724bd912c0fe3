"""Fill the HTML fragments of ``templates/`` and escape all values that are plain text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files
from string import Template

from temporal_airflow_nb.printable_text import make_printable


class Markup(str):
    """Text that is HTML already.

    Convert it to ``str`` before you pass it to a front end: marimo accepts no subclass of ``str``.
    """

    __slots__ = ()


def fill(fragment: str, **values: object) -> Markup:
    """Return a fragment of the templates with its ``$names`` replaced by the values, escaped.

    >>> fill("place", text="a < b")
    '<div style="margin-top:4px;color:#767c85">a &lt; b</div>'
    """
    return Markup(
        _fragments()[fragment].substitute({name: to_markup(value) for name, value in values.items()})
    )


def join(parts: Iterable[Markup]) -> Markup:
    """Join fragments with line breaks."""
    return Markup("\n".join(parts))


def to_markup(value: object) -> Markup:
    """Return a value as HTML, escaped unless it is HTML already."""
    return value if isinstance(value, Markup) else Markup(html.escape(make_printable(str(value)), quote=True))


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
