"""Answer the requests that a page sends to its live grid.

``RunWidget`` calls :func:`answer` in a new thread for each request. A handler may wait for the stack, so it holds
``poller.lock`` only to read the state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from temporal_airflow_nb.display.commands import suggest_commands
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.live_grid.messages import FullState, Request
from temporal_airflow_nb.live_grid.poller import GridPoller

_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "cancel": (),
    "mark": ("state", "task_ids", "map_indexes", "upstream", "downstream"),
    "clear": ("task_ids", "map_indexes", "upstream", "downstream", "only_failed"),
}


class PageOwner(Protocol):
    """A live grid, as the handlers of requests need it."""

    poller: GridPoller

    def full_state(self) -> FullState:
        """Return the whole state for the page."""

    def focus(self, run_id: str) -> None:
        """Follow another run of the DAG."""

    def show_view(self, view: str) -> None:
        """Remember the view that the page shows."""

    def wake(self) -> None:
        """Poll for changes now."""


def answer(live: PageOwner, request: Request) -> Any:
    """Return the answer to a request.

    Raises
    ------
    TemporalAirflowError
        The request can't be carried out.
    """
    op = str(request.get("op"))
    handler = _HANDLERS.get(op)
    if handler is None:
        raise InvalidInputError(f"There is no request {op!r}.", hint="Load the page again.")
    return handler(live, request)


def _mounted(live: PageOwner, _: Request) -> dict[str, Any]:
    live.wake()
    with live.poller.lock:
        return {"seq": live.poller.state.seq}


def _full(live: PageOwner, _: Request) -> FullState:
    return live.full_state()


def _task(live: PageOwner, request: Request) -> dict[str, Any]:
    instance = _instance(request)
    details = live.poller.call("task", **instance, try_number=request.get("try_number"))
    next_calls = suggest_commands(instance["task_id"], instance["map_index"], details.get("state"))
    return {**details, "commands": next_calls}


def _log(live: PageOwner, request: Request) -> dict[str, Any]:
    return live.poller.call(
        "log_tail",
        **_instance(request),
        try_number=request.get("try_number"),
        after=request.get("after") or 0,
    )


def _act(live: PageOwner, request: Request) -> dict[str, Any]:
    action = str(request.get("action"))
    if action not in _ACTIONS:
        raise InvalidInputError(
            f"There is no action {action!r}.", hint=f"The actions are {', '.join(sorted(_ACTIONS))}."
        )
    body = {name: request[name] for name in _ACTIONS[action] if request.get(name) is not None}
    result = live.poller.call(action, timeout=60.0, **body)
    live.wake()
    return {"affected": len(result["affected"])}


def _focus(live: PageOwner, request: Request) -> dict[str, Any]:
    live.focus(str(request["run_id"]))
    return {}


def _view(live: PageOwner, request: Request) -> dict[str, Any]:
    live.show_view(str(request["view"]))
    return {}


def _instance(request: Request) -> dict[str, Any]:
    return {"task_id": str(request["task_id"]), "map_index": int(request.get("map_index", -1))}


_HANDLERS: Mapping[str, Callable[[PageOwner, Request], Any]] = {
    "mounted": _mounted,
    "full": _full,
    "task": _task,
    "log": _log,
    "act": _act,
    "focus": _focus,
    "view": _view,
}
