"""The live grid as a widget of anywidget, for every front end that knows those."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from temporal_airflow_nb.errors import TemporalAirflowError


class RunWidget(anywidget.AnyWidget):
    """A page's view of a DAG's runs.

    Its state isn't sent on each change: the page gets changes as messages. A page that is loaded later asks
    for the traits, and gets the state as it is then.

    Parameters
    ----------
    full
        Returns the whole state.
    answer
        Answers a request of the page; called in a thread of its own, so that the kernel's loop stays free.
    """

    # As text: the watcher of a path would keep every widget for as long as the kernel lives.
    _esm = (Path(__file__).parent / "static" / "widget.js").read_text(encoding="utf-8")
    key = traitlets.Unicode().tag(sync=True)
    view = traitlets.Unicode("grid").tag(sync=True)
    state = traitlets.Dict().tag(sync=True, to_json=lambda _, widget: widget.full_state())

    def __init__(
        self,
        full: Callable[[], dict[str, Any]],
        answer: Callable[[Mapping[str, Any]], Any],
        **traits: Any,
    ) -> None:
        self._full = full
        self._answer = answer
        super().__init__(**traits)
        _stay_free(self.comm)

    def full_state(self) -> dict[str, Any]:
        """Return the whole state as of now."""
        return self._full()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message to the page; nothing happens where there is none any more."""
        with suppress(Exception):
            self.send(dict(message))

    def close(self) -> None:
        """Take the widget out of the kernel and the page, and its layout, which is a widget too."""
        layout = self.layout
        super().close()
        layout.close()

    def _handle_custom_msg(self, content: Any, _: Any) -> None:
        # Overridden, and not a callback: the page may ask as soon as the widget opens.
        if isinstance(content, dict) and content.get("type") == "request":
            threading.Thread(
                target=self._respond, args=(content,), name="temporal-airflow-request", daemon=True
            ).start()

    def _respond(self, request: Mapping[str, Any]) -> None:
        answer: dict[str, Any] = {"type": "answer", "id": request.get("id")}
        try:
            answer |= {"ok": True, "data": self._answer(request)}
        except TemporalAirflowError as error:
            answer |= {"ok": False, "error": {"message": error.message, "hint": error.hint}}
        except Exception as error:
            answer |= {"ok": False, "error": {"message": f"{type(error).__name__}: {error}", "hint": ""}}
        self.tell(answer)


def _stay_free(comm: Any) -> None:
    """Let messages of the page come in by the subshell that the page chose for them.

    ipykernel sends them where the kernel last wrote from. For a widget that a cell makes, and a thread writes
    to, that is the loop of cells: while one is executed, the page would get no answer.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _, chosen: chosen
