"""The output of a cell that shows a run and is replaced in place.

Threads: the cell's thread publishes first, then the thread that follows the run. Outside of a progress display,
``LiveGrid`` holds its ``_publish_lock`` for each call, so that outputs appear in the order of their states.
"""

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

# Rendering and sending the HTML may take a tenth of the time at most: the next one waits this many times as long.
_WAIT_PER_RENDERING = 10


def current_cell_id(shell: Any) -> str | None:
    """Return the id of the cell that a shell executes; None if it is unknown."""
    # IPython in a terminal has no `get_parent`, and not every front end sends `cellId`.
    get_parent = getattr(shell, "get_parent", None)
    parent = get_parent() if get_parent is not None else None
    cell_id: str | None = ((parent or {}).get("metadata") or {}).get("cellId")
    return cell_id


class Document:
    """The HTML and text of a run in a notebook, complete at any moment.

    Parameters
    ----------
    shell
        The shell whose current cell gets the output; None if there is no output.
    kind
        How the front end shows it.

    Attributes
    ----------
    key : str
        Identifies the output in the page, so that the widget finds it.
    is_mounted : bool
        Whether the widget in a page has sent a request, so that it covers this output.
    """

    def __init__(self, shell: Any, kind: FrontEnd) -> None:
        self.kind = kind
        self.key = uuid.uuid4().hex
        self.is_mounted = False
        self._shell = shell
        self._is_published = False
        self._shows_widget = False
        self._due = 0.0

    @property
    def is_replaceable(self) -> bool:
        """Whether the front end can replace the output later."""
        return self.kind not in (FrontEnd.TEXT, FrontEnd.NONE)

    @property
    def needs_new_clocks(self) -> bool:
        """Whether the clocks of running tasks advance only when the output is published again."""
        return self.kind is FrontEnd.HTML or (self.kind is FrontEnd.MOUNTING and not self.is_mounted)

    @property
    def seconds_until_due(self) -> float:
        """Seconds until the output may be published again."""
        return max(0.0, self._due - time.monotonic())

    def show_card(self, title: str, details: str, state: str) -> None:
        """Show a line of progress, before there is a run."""
        plain = f"{title} {details}".strip()
        self._publish({"text/html": html.render_card(title, details, state=state), "text/plain": plain}, {})

    def show_grid(self, shown: Grid, widget: RunWidget | None = None) -> None:
        """Show a run as HTML, or as a widget in front ends that can show one."""
        # A widget that is shown already updates itself.
        if self.kind is FrontEnd.NONE or (widget is not None and self._shows_widget):
            return
        begun = time.monotonic()
        data: dict[str, Any] = {
            "text/html": html.render(shown, key=self.key),
            "text/plain": text.render_text(shown),
        }
        facts = {"dag_id": shown.dag_id, "run_id": shown.run_id, "state": shown.state}
        metadata: dict[str, Any] = {METADATA: facts}
        if widget is not None:
            # The only source of the metadata that anywidget adds: Colab finds its widget manager by it.
            view, about = widget._repr_mimebundle_() or ({}, {})
            data = {**view, **data}
            metadata |= about
        self._shows_widget = widget is not None
        self._publish(data, metadata)
        now = time.monotonic()
        self._due = now + max(self._min_interval, (now - begun) * _WAIT_PER_RENDERING)

    @property
    def _min_interval(self) -> float:
        if self.kind is FrontEnd.MOUNTING:
            return 5.0 if self.is_mounted else 1.0
        return 0.125

    def _publish(self, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        # The display id lets any thread replace the output later, whatever cell is being executed then.
        self._shell.display_pub.publish(
            data=dict(data),
            metadata=dict(metadata),
            transient={"display_id": self.key},
            update=self._is_published,
        )
        self._is_published = True
