"""What a page may ask of the live grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from temporal_airflow_nb.display.commands import commands
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.live_grid.poller import Feed

_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "cancel": (),
    "mark": ("state", "task_ids", "map_indexes", "upstream", "downstream"),
    "clear": ("task_ids", "map_indexes", "upstream", "downstream", "only_failed"),
}


class Live(Protocol):
    """What a page's requests are carried out on."""

    feed: Feed

    def full(self) -> dict[str, Any]:
        """Return the whole state."""

    def focus(self, run_id: str) -> None:
        """Follow another run of the DAG."""

    def show_view(self, view: str) -> None:
        """Remember what the page shows of the run."""

    def wake(self) -> None:
        """Look for changes at once."""


def answer(live: Live, request: Mapping[str, Any]) -> Any:
    """Return the answer to a request.

    Raises
    ------
    TemporalAirflowError
        What was asked for can't be done.
    """
    op = str(request.get("op"))
    handler = _HANDLERS.get(op)
    if handler is None:
        raise InvalidInputError(f"There is no request {op!r}.", hint="Load the page again.")
    return handler(live, request)


def _mounted(live: Live, _: Mapping[str, Any]) -> dict[str, Any]:
    live.wake()
    with live.feed.lock:
        return {"seq": live.feed.state.seq}


def _full(live: Live, _: Mapping[str, Any]) -> dict[str, Any]:
    return live.full()


def _task(live: Live, request: Mapping[str, Any]) -> dict[str, Any]:
    which = _instance(request)
    told = live.feed.call("task", **which, try_number=request.get("try_number"))
    return {**told, "commands": commands(which["task_id"], which["map_index"], told.get("state"))}


def _log(live: Live, request: Mapping[str, Any]) -> dict[str, Any]:
    return live.feed.call(
        "log_tail",
        **_instance(request),
        try_number=request.get("try_number"),
        after=request.get("after") or 0,
    )


def _act(live: Live, request: Mapping[str, Any]) -> dict[str, Any]:
    action = str(request.get("action"))
    if action not in _ACTIONS:
        raise InvalidInputError(
            f"There is no action {action!r}.", hint=f"There are {', '.join(sorted(_ACTIONS))}."
        )
    body = {name: request[name] for name in _ACTIONS[action] if request.get(name) is not None}
    done = live.feed.call(action, timeout=60.0, **body)
    live.wake()
    return {"affected": len(done["affected"])}


def _focus(live: Live, request: Mapping[str, Any]) -> dict[str, Any]:
    live.focus(str(request["run_id"]))
    return {}


def _view(live: Live, request: Mapping[str, Any]) -> dict[str, Any]:
    live.show_view(str(request["view"]))
    return {}


def _instance(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"task_id": str(request["task_id"]), "map_index": int(request.get("map_index", -1))}


_HANDLERS: Mapping[str, Callable[[Live, Mapping[str, Any]], Any]] = {
    "mounted": _mounted,
    "full": _full,
    "task": _task,
    "log": _log,
    "act": _act,
    "focus": _focus,
    "view": _view,
}
