"""One output of a notebook, replaced in place."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.display import html, text
from temporal_airflow_nb.display.model import Grid
from temporal_airflow_nb.live_grid.front_end import FrontEnd

if TYPE_CHECKING:
    from temporal_airflow_nb.live_grid.widget import RunWidget

METADATA = "temporal_airflow"

# A picture takes time to make, to send and to lay out: it is made in a tenth of the time at most.
_SHARE_OF_TIME = 10


def cell_of(shell: Any) -> str | None:
    """Return the id of the cell that a shell executes; None where the front end doesn't say."""
    ask = getattr(shell, "get_parent", None)
    parent = ask() if ask is not None else None
    return ((parent or {}).get("metadata") or {}).get("cellId")


class Document:
    """What a notebook keeps of a run: HTML and text, at any moment.

    Parameters
    ----------
    shell
        The shell whose current cell gets the output; None where there is no output.
    kind
        How the front end takes it.

    Attributes
    ----------
    key : str
        Under which the widget finds its place in the page.
    watched : bool
        Whether a page has shown that its widget is there.
    """

    def __init__(self, shell: Any, kind: FrontEnd) -> None:
        self.kind = kind
        self.key = uuid.uuid4().hex
        self.watched = False
        self._shell = shell
        self._shown = False
        self._shows_widget = False
        self._due = 0.0

    @property
    def replaces(self) -> bool:
        """Whether what is shown can be replaced later."""
        return self.kind not in (FrontEnd.TEXT, FrontEnd.NONE)

    @property
    def animated(self) -> bool:
        """Whether the clock of a running task goes on by new pictures alone."""
        return self.kind is FrontEnd.HTML or (self.kind is FrontEnd.MOUNTING and not self.watched)

    @property
    def wait(self) -> float:
        """Seconds until the next picture is due."""
        return max(0.0, self._due - time.monotonic())

    def card(self, title: str, details: str, state: str) -> None:
        """Show a line about what goes on before there is a run."""
        plain = f"{title} {details}".strip()
        self._publish({"text/html": html.card(title, details, state=state), "text/plain": plain}, {})

    def grid(self, shown: Grid, widget: RunWidget | None = None) -> None:
        """Show a run; where a widget is part of the output, it takes the HTML's place until it is left out."""
        if self.kind is FrontEnd.NONE or (widget is not None and self._shows_widget):
            return
        begun = time.monotonic()
        data: dict[str, Any] = {
            "text/html": html.render(shown, key=self.key),
            "text/plain": text.plain(shown),
        }
        facts = {"dag_id": shown.dag_id, "run_id": shown.run_id, "state": shown.state}
        metadata: dict[str, Any] = {METADATA: facts}
        if widget is not None:
            # anywidget knows what else a front end needs: Colab, where its widget manager is.
            view, about = widget._repr_mimebundle_() or ({}, {})
            data = {**view, **data}
            metadata |= about
        self._shows_widget = widget is not None
        self._publish(data, metadata)
        now = time.monotonic()
        self._due = now + max(self._pace, (now - begun) * _SHARE_OF_TIME)

    @property
    def _pace(self) -> float:
        if self.kind is FrontEnd.MOUNTING:
            return 5.0 if self.watched else 1.0
        return 0.125

    def _publish(self, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        self._shell.display_pub.publish(
            data=dict(data),
            metadata=dict(metadata),
            transient={"display_id": self.key},
            update=self._shown,
        )
        self._shown = True
