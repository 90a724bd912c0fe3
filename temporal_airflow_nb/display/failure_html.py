"""Render failed tasks as HTML cards: exception, code, end of the log, and useful calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from temporal_airflow_nb.display.templates import Markup, fill, join


class ShownLine(Protocol):
    """A line of the user's code on a card."""

    @property
    def number(self) -> int:
        """The line's number in its cell or file."""

    @property
    def text(self) -> str:
        """The line."""

    @property
    def failing(self) -> bool:
        """Whether the exception was raised here."""


class ShownFailure(Protocol):
    """The content of a card; see :class:`temporal_airflow_nb.display.failures.Failure`."""

    @property
    def name(self) -> str:
        """The task instance."""

    @property
    def after(self) -> str:
        """The try that failed and its duration."""

    @property
    def exception(self) -> str:
        """Type and message of the exception."""

    @property
    def more(self) -> tuple[str, ...]:
        """Notes and causes of the exception."""

    @property
    def place(self) -> str:
        """The place where the exception was raised."""

    @property
    def source(self) -> Sequence[ShownLine]:
        """The lines around that place."""

    @property
    def log(self) -> tuple[str, ...]:
        """The last lines of the log."""

    @property
    def traceback(self) -> str:
        """The traceback as text."""

    @property
    def commands(self) -> tuple[str, ...]:
        """Calls that are useful next."""


def render_failures(failed: Iterable[ShownFailure]) -> str:
    """Return the cards of all failures."""
    shown = tuple(failed)
    return render_first_failures(shown, len(shown)) or "<p>Nothing failed.</p>"


def render_failure(failed: ShownFailure) -> Markup:
    """Return the card of a failure."""
    message = failed.exception.splitlines() or [""]
    return fill(
        "failure",
        name=failed.name,
        after=f"{failed.after}:" if failed.after and failed.exception else failed.after,
        exception=message[0],
        more=_pre("message", "\n".join(more)) if (more := [*message[1:], *failed.more]) else "",
        place=fill("place", text=failed.place) if failed.place else "",
        source=fill("pre", kind="source", text=_source(failed)) if failed.source else "",
        log=join([fill("place", text="The end of its log:"), _pre("log", "\n".join(failed.log))])
        if failed.log
        else "",
        traceback=fill("traceback", pre=_pre("traceback", failed.traceback)) if failed.traceback else "",
        commands=join(fill("command", call=call) for call in failed.commands),
    )


def render_first_failures(shown: Sequence[ShownFailure], total: int) -> Markup | str:
    """Return the cards of the first failures, and the number of further ones of ``total``."""
    if not shown:
        return ""
    made = [render_failure(failed) for failed in shown]
    if total > len(shown):
        made.append(fill("more", text=f"… and {total - len(shown)} more in run.failures"))
    return fill("failures", failures=join(made))


def _source(failed: ShownFailure) -> Markup:
    width = len(str(failed.source[-1].number))
    texts = ((f"{line.number:>{width}}  {line.text}", line.failing) for line in failed.source)
    return Markup(
        "\n".join(
            fill("failing", text=f"▸ {text}") if failing else fill("text", text=f"  {text}")
            for text, failing in texts
        )
    )


def _pre(kind: str, text: str) -> Markup:
    return fill("pre", kind=kind, text=text)
