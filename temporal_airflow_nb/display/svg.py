"""Make elements of SVG pictures, and the ticks of their axes."""

from __future__ import annotations

from collections.abc import Iterator

from temporal_airflow_nb.display.model import format_duration
from temporal_airflow_nb.display.templates import Markup, join, to_markup

QUIET = 0.65
FAINT = 0.15
CHARACTER = 6.9
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
_STEPS = (
    *(factor * 10.0**power for power in range(-3, 1) for factor in (1, 2, 5)),
    *(10.0, 15.0, 30.0),
    *(minutes * 60.0 for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * 3600.0 for hours in (1, 2, 3, 6, 12)),
)
_DAY = 86_400.0


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """Return an element. Plain text is escaped, and ``stroke_width`` becomes ``stroke-width``.

    >>> tag("text", "a < b", x=1.23456, fill_opacity=0.5)
    '<text x="1.23" fill-opacity="0.5">a &lt; b</text>'
    """
    inside = join(map(to_markup, children))
    written = "".join(
        f' {key.replace("_", "-")}="{to_markup(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{inside}</{name}>")


def text(x: float, y: float, content: str, **attributes: object) -> Markup:
    """Return a text whose baseline begins at a point."""
    return tag("text", content, x=x, y=y, **attributes)


def picture(title: str, description: str, *parts: str, width: float, height: float) -> Markup:
    """Return a self-contained picture that takes the colour of the text around it."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        role="img",
        aria_label=f"{title}. {description}",
        width=width,
        height=height,
        viewBox=f"0 0 {width:g} {height:g}",
        fill="currentColor",
        font_family=_FONT,
        font_size=11.5,
        style="max-width: 100%; height: auto",
    )


def ticks(seconds: float, most: int) -> Iterator[tuple[float, str]]:
    """Yield position and label of about ``most`` ticks at most, on an axis of so many seconds.

    >>> list(ticks(2.5, 4))
    [(0.0, '0 s'), (1.0, '1 s'), (2.0, '2 s')]
    """
    least = seconds / max(1, most)
    step = next((step for step in _STEPS if step >= least), None)
    if step is None:
        step = _DAY * -(-least // _DAY)
    for number in range(int(seconds / step + 1e-9) + 1):
        yield number * step, _elapsed(number * step, step)


def _elapsed(seconds: float, step: float) -> str:
    if seconds < 60:
        return f"{round(seconds, 3):g} s"
    if step < 60:
        return format_duration(round(seconds))
    hours, minutes = divmod(round(seconds / 60), 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def _number(value: object) -> object:
    return f"{round(value, 2):g}" if isinstance(value, float) else value
