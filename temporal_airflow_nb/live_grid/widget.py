"""The live grid as an anywidget, for every front end that can show one.

Threads of the kernel: ipykernel's thread or subshell receives the messages of the page and starts a thread for each
request. The thread that follows the run sends changes. ``send`` may be called in any of them, so no lock is needed
here; the state that :meth:`RunWidget.full_state` returns is read under ``GridPoller.lock``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from temporal_airflow_nb.errors import TemporalAirflowError
from temporal_airflow_nb.live_grid.messages import FullState, Request
from temporal_airflow_nb.printable_text import make_all_printable

log = logging.getLogger(__name__)


class RunWidget(anywidget.AnyWidget):
    """The kernel's side of the grid in a page.

    The page receives changes as messages, so the trait ``state`` isn't sent again on each change. A page that is
    loaded later asks for the traits and gets the state of that moment.

    Parameters
    ----------
    full
        Returns the whole state.
    answer
        Answers a request of the page. Called in a new thread, so that the kernel stays free for other messages.
    """

    # As text: for a path, anywidget starts a watcher that keeps a reference to every widget until the kernel ends.
    _esm = (Path(__file__).parent / "static" / "widget.js").read_text(encoding="utf-8")
    key = traitlets.Unicode().tag(sync=True)
    view = traitlets.Unicode("grid").tag(sync=True)
    state = traitlets.Dict().tag(sync=True, to_json=lambda _, widget: make_all_printable(widget.full_state()))

    def __init__(
        self,
        full: Callable[[], FullState],
        answer: Callable[[Request], Any],
        **traits: Any,
    ) -> None:
        self._full = full
        self._answer = answer
        super().__init__(**traits)
        _accept_chosen_subshell(self.comm)

    def full_state(self) -> FullState:
        """Return the whole state of this moment."""
        return self._full()

    def send_message(self, message: Mapping[str, Any]) -> None:
        """Send a message to the page; do nothing if the page is closed."""
        # Another thread may close the widget during this, or the kernel its sockets; the errors have several classes.
        # A page that misses a message notices it by the number of the next one, and requests the whole state.
        with suppress(Exception):
            self.send(make_all_printable(dict(message)))

    def close(self) -> None:
        """Remove the widget and its layout, which is another widget, from the kernel and the page."""
        layout = self.layout
        super().close()
        layout.close()

    def _handle_custom_msg(self, content: Any, _: Any) -> None:
        # A private method of ipywidgets, overridden instead of registered with `on_msg`: the page may send a request as
        # soon as the comm is open, before a callback could be registered. If ipywidgets renames the method, the page
        # gets no answers.
        if isinstance(content, dict) and content.get("type") == "request":
            threading.Thread(
                target=self._respond, args=(content,), name="temporal-airflow-request", daemon=True
            ).start()

    def _respond(self, request: Request) -> None:
        answer: dict[str, Any] = {"type": "answer", "id": request.get("id")}
        try:
            answer |= {"ok": True, "data": self._answer(request)}
        except TemporalAirflowError as error:
            answer |= {"ok": False, "error": {"message": error.message, "hint": error.hint}}
        except Exception as error:
            # Without an answer, the page would wait for a minute.
            log.debug("The request %r of a page failed.", request.get("op"), exc_info=True)
            answer |= {"ok": False, "error": {"message": f"{type(error).__name__}: {error}", "hint": ""}}
        self.send_message(answer)


def _accept_chosen_subshell(comm: Any) -> None:
    """Receive the page's messages in the subshell that the page chose.

    ipykernel's ``Comm._reply_subshell_for`` selects the subshell that the kernel last wrote from. A cell creates
    the widget, so that would be the main shell: while a cell runs, the page would get no answer. The method is private;
    ipykernel leaves the page's choice as it is if a comm doesn't have it.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _, chosen: chosen
