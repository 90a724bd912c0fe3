"""Answer the requests that a page sends to its live grid.

``RunWidget`` calls :func:`answer` in the kernel, in a new thread for each request. A handler may wait for the stack, so
it holds ``poller.lock`` only to read the state. Fields of a request come from the page and may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from temporal_airflow_nb.display.commands import suggest_commands
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.live_grid.messages import FullState, Request
from temporal_airflow_nb.live_grid.poller import GridPoller
from temporal_airflow_nb.messages.requests import ClearTasks, MarkTasks

if TYPE_CHECKING:
    from temporal_airflow_nb.client.protocol import StackClient
    from temporal_airflow_nb.messages.runs import ActionResult
    from temporal_airflow_nb.messages.tasks import LogTail

_ACTION_SECONDS = 60.0


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


def _mounted(live: PageOwner, _: Request) -> dict[str, object]:
    # The page compares this number with that of its state, and requests the whole state if it missed a change.
    live.wake()
    with live.poller.lock:
        return {"seq": live.poller.state.seq}


def _full(live: PageOwner, _: Request) -> FullState:
    return live.full_state()


def _task(live: PageOwner, request: Request) -> dict[str, object]:
    state, which = live.poller.state, _instance(request)
    details = live.poller.client.get_task(
        state.dag_id, state.run_id, *which, try_number=request.get("try_number")
    )
    return {**details, "commands": suggest_commands(*which, details["state"])}


def _log(live: PageOwner, request: Request) -> LogTail:
    state = live.poller.state
    return live.poller.client.tail_log(
        state.dag_id,
        state.run_id,
        *_instance(request),
        try_number=request.get("try_number"),
        after=request.get("after") or 0,
    )


def _act(live: PageOwner, request: Request) -> dict[str, int]:
    name = str(request.get("action"))
    action = _ACTIONS.get(name)
    if action is None:
        raise InvalidInputError(
            f"There is no action {name!r}.", hint=f"The actions are {', '.join(sorted(_ACTIONS))}."
        )
    state = live.poller.state
    client = live.poller.client.with_limits(timeout=_ACTION_SECONDS)
    result = action(client, state.dag_id, state.run_id, request)
    # The thread of an ended run may be idle for seconds, and a cleared run begins again.
    live.wake()
    return {"affected": len(result["affected"])}


def _cancel(client: StackClient, dag_id: str, run_id: str, _: Request) -> ActionResult:
    return client.cancel_run(dag_id, run_id)


def _clear(client: StackClient, dag_id: str, run_id: str, request: Request) -> ActionResult:
    return client.clear_tasks(
        ClearTasks(
            dag_id,
            run_id,
            request.get("task_ids"),
            request.get("map_indexes"),
            upstream=bool(request.get("upstream")),
            downstream=bool(request.get("downstream")),
            only_failed=bool(request.get("only_failed")),
        )
    )


def _mark(client: StackClient, dag_id: str, run_id: str, request: Request) -> ActionResult:
    return client.mark_tasks(
        MarkTasks(
            dag_id,
            run_id,
            str(request.get("state")),
            request.get("task_ids"),
            request.get("map_indexes"),
            upstream=bool(request.get("upstream")),
            downstream=bool(request.get("downstream")),
        )
    )


_ACTIONS: Mapping[str, Callable[[StackClient, str, str, Request], ActionResult]] = {
    "cancel": _cancel,
    "clear": _clear,
    "mark": _mark,
}


def _focus(live: PageOwner, request: Request) -> dict[str, object]:
    live.focus(str(request["run_id"]))
    return {}


def _view(live: PageOwner, request: Request) -> dict[str, object]:
    live.show_view(str(request["view"]))
    return {}


def _instance(request: Request) -> tuple[str, int]:
    return str(request["task_id"]), int(request.get("map_index", -1))


_HANDLERS: Mapping[str, Callable[[PageOwner, Request], Any]] = {
    "mounted": _mounted,
    "full": _full,
    "task": _task,
    "log": _log,
    "act": _act,
    "focus": _focus,
    "view": _view,
}
