"""The card of a failed task as HTML: exception, the user's own lines, the end of the log, what to call next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from temporal_airflow_nb.display.templates import Markup, fill, joined


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
    """What a card shows; see :class:`temporal_airflow_nb.display.failures.Failure`."""

    @property
    def name(self) -> str:
        """The task instance."""

    @property
    def after(self) -> str:
        """At which try and after how long it failed."""

    @property
    def exception(self) -> str:
        """Type and message of the exception."""

    @property
    def more(self) -> tuple[str, ...]:
        """Notes and causes of the exception."""

    @property
    def place(self) -> str:
        """Where the exception was raised."""

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
        """What can be called next."""


def failure_cards(failed: Iterable[ShownFailure]) -> str:
    """Return cards of failures, one below the other."""
    shown = tuple(failed)
    return cards(shown, len(shown)) or "<p>Nothing failed.</p>"


def failure_card(failed: ShownFailure) -> Markup:
    """Return a failure with its code, its log's end and what to call next."""
    message = failed.exception.splitlines() or [""]
    return fill(
        "failure",
        name=failed.name,
        after=f"{failed.after}:" if failed.after and failed.exception else failed.after,
        exception=message[0],
        more=_pre("message", "\n".join(more)) if (more := [*message[1:], *failed.more]) else "",
        place=fill("place", text=failed.place) if failed.place else "",
        source=fill("pre", kind="source", text=_source(failed)) if failed.source else "",
        log=joined([fill("place", text="The end of its log:"), _pre("log", "\n".join(failed.log))])
        if failed.log
        else "",
        traceback=fill("traceback", pre=_pre("traceback", failed.traceback)) if failed.traceback else "",
        commands=joined(fill("command", call=call) for call in failed.commands),
    )


def cards(shown: Sequence[ShownFailure], total: int) -> Markup | str:
    """Return cards of the first failures, and how many more there are of ``total``."""
    if not shown:
        return ""
    made = [failure_card(failed) for failed in shown]
    if total > len(shown):
        made.append(fill("more", text=f"… and {total - len(shown)} more in run.failures"))
    return fill("failures", failures=joined(made))


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
