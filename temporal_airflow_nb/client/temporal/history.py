"""The history of a run's workflow as a table, each event described in words.

The gateway and the client of Temporal read histories in their event loops. Temporal keeps a history for each
execution: a run that was cleared, or that is long, has several, and their events are listed one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import timezone
from typing import Any, Final

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from temporal_airflow_nb.client.rows import as_table
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.config.temporal import connect_client
from temporal_airflow_nb.errors import ServiceUnavailableError
from temporal_airflow_nb.messages.requests import JsonObject
from temporal_airflow_nb.messages.tables import EVENT_COLUMNS, Table
from temporal_airflow_nb.orchestration.workflow.activity_calls import parse_activity_id

# Temporal's own bookkeeping, three events for each step of the workflow.
_LEFT_OUT = frozenset(
    {
        EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
        EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
        EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
    }
)
# The marker by which Temporal's SDK records a local activity, with the payloads "data" and "result". Neither is part of
# the SDK's public API: if they change, these events show the name of the marker, or no detail.
_LOCAL_ACTIVITY = "core_local_activity"
# Characters of a detail.
_LONGEST = 300


class History:
    """Reads histories from Temporal.

    Parameters
    ----------
    client
        The client to use; if None, a client is connected when it is first needed.
    check
        Raises if a run doesn't exist; called in a thread.
    """

    def __init__(self, client: Client | None, check: Callable[[str, str], object]) -> None:
        self._client = client
        self._check = check
        self._connecting = asyncio.Lock()

    async def events(self, dag_id: str, run_id: str) -> Table:
        """Return the events of a run's workflow, of all its executions, oldest first.

        Raises
        ------
        RunNotFoundError
            There is no such run.
        ServiceUnavailableError
            Temporal can't be reached.
        """
        await asyncio.to_thread(self._check, dag_id, run_id)
        return await events_of(await self._connected(), dag_id, run_id)

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is None:
                self._client = await connect_client()
        return self._client


async def events_of(client: Client, dag_id: str, run_id: str) -> Table:
    """Return the events of a run's workflow; none if Temporal has no such workflow.

    Raises
    ------
    ServiceUnavailableError
        Temporal can't be reached.
    """
    try:
        rows = [row async for row in _rows(client, workflow_id(dag_id, run_id))]
    except RPCError as error:
        raise ServiceUnavailableError(
            f"Temporal can't return the history of {dag_id} {run_id}: {error.message}.",
            hint="See `temporal-airflow status`.",
            service="temporal",
        ) from error
    return as_table(rows, EVENT_COLUMNS)


async def _rows(client: Client, workflow: str) -> AsyncIterator[dict[str, object]]:
    for execution, events in await _executions(client, workflow):
        reader = _Reader(client)
        for event in events:
            row = await reader.row(event)
            if event.event_type not in _LEFT_OUT:
                yield {**row, "execution": execution}


async def _executions(client: Client, workflow: str) -> list[tuple[str, list[HistoryEvent]]]:
    """Return the events of each execution of a workflow, the oldest execution first."""
    # The list may not have a new execution yet, so `describe` adds the latest. Each history names the execution that
    # it continues, which the list may not have any more.
    ids = [found.run_id async for found in client.list_workflows(f'WorkflowId = "{workflow}"')]
    try:
        ids.append((await client.get_workflow_handle(workflow).describe()).run_id)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
    histories: dict[str, list[HistoryEvent]] = {}
    while ids:
        execution = ids.pop()
        if execution in histories:
            continue
        handle = client.get_workflow_handle(workflow, run_id=execution)
        try:
            events = [event async for event in handle.fetch_history_events()]
        except RPCError as error:
            # Temporal drops what is older than the namespace's retention period.
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            continue
        histories[execution] = events
        before = events[0].workflow_execution_started_event_attributes.continued_execution_run_id
        ids += [before] if before else []
    return sorted(histories.items(), key=lambda history: history[1][0].event_time.ToNanoseconds())


class _Reader:
    """Reads the events of an execution in their order: later events refer to earlier ones."""

    def __init__(self, client: Client) -> None:
        self._converter = client.data_converter
        self._tasks: dict[int, dict[str, object]] = {}
        self._timers: dict[int, str] = {}

    async def row(self, event: HistoryEvent) -> dict[str, object]:
        kind = str(event.WhichOneof("attributes"))
        facts: Any = getattr(event, kind, None)
        describe = _DESCRIPTIONS.get(kind.removesuffix("_event_attributes"))
        detail = await describe(self, event, facts) if describe is not None else _failure_of(facts)
        return {
            "event_id": event.event_id,
            "time": event.event_time.ToDatetime(timezone.utc).isoformat(),
            "type": _type_in_words(event, facts),
            "detail": detail[:_LONGEST],
            **self._tasks.get(getattr(facts, "scheduled_event_id", None) or event.event_id, {}),
        }

    async def _workflow_execution_started(self, _: HistoryEvent, facts: Any) -> str:
        if facts.continued_execution_run_id:
            return f"continues {facts.continued_execution_run_id}"
        return str(facts.workflow_type.name)

    async def _workflow_execution_completed(self, _: HistoryEvent, facts: Any) -> str:
        result = await self._read(facts.result.payloads)
        return str(result.get("state", "")) if isinstance(result, dict) else ""

    async def _workflow_execution_continued_as_new(self, _: HistoryEvent, facts: Any) -> str:
        return f"as {facts.new_execution_run_id}"

    async def _workflow_execution_signaled(self, _: HistoryEvent, facts: Any) -> str:
        names = await self._read(facts.input.payloads)
        listed = f": {', '.join(map(str, names))}" if isinstance(names, list) and names else ""
        return f"{facts.signal_name}{listed}"

    async def _upsert_workflow_search_attributes(self, _: HistoryEvent, facts: Any) -> str:
        fields = facts.search_attributes.indexed_fields
        return ", ".join([f"{name} {_plain(fields[name])}" for name in sorted(fields)])

    async def _activity_task_scheduled(self, event: HistoryEvent, facts: Any) -> str:
        if (tried := parse_activity_id(facts.activity_id)) is not None:
            self._tasks[event.event_id] = dict(
                zip(("task_id", "map_index", "try_number"), tried, strict=True)
            )
        return f"{facts.activity_type.name}, queue {facts.task_queue.name}"

    async def _activity_task_started(self, _: HistoryEvent, facts: Any) -> str:
        parts = [f"by {facts.identity}"]
        if facts.attempt > 1:
            parts.append(f"attempt {facts.attempt}")
            if why := _reason(facts.last_failure):
                parts.append(f"after: {why}")
        return ", ".join(parts)

    async def _timer_started(self, event: HistoryEvent, facts: Any) -> str:
        summary = await self._read([event.user_metadata.summary] if event.user_metadata.summary.data else [])
        seconds = facts.start_to_fire_timeout.ToNanoseconds() / 1e9
        self._timers[event.event_id] = str(summary or "")
        return f"{round(seconds, 3):g} s" + (f": {summary}" if summary else "")

    async def _timer_ended(self, _: HistoryEvent, facts: Any) -> str:
        return self._timers.get(facts.started_event_id, "")

    async def _marker_recorded(self, _: HistoryEvent, facts: Any) -> str:
        if facts.marker_name != _LOCAL_ACTIVITY:
            return str(facts.marker_name)
        about = await self._read(facts.details["data"].payloads) if "data" in facts.details else None
        name = about.get("activity_type", "") if isinstance(about, dict) else ""
        if why := _reason(facts.failure):
            return f"{name} failed: {why}"
        result = await self._read(facts.details["result"].payloads) if "result" in facts.details else None
        outcome = _outcome(result)
        return f"{name}: {outcome}" if outcome else name

    async def _read(self, payloads: Sequence[Payload]) -> Any:
        """Return the first of the payloads' values; None if it can't be read."""
        if not payloads:
            return None
        try:
            return (await self._converter.decode(payloads[:1]))[0]
        except Exception:
            # A payload codec is the user's code and may raise anything, for example if this process has no key. The
            # table is useful without the detail.
            return None


_DESCRIPTIONS: Final[dict[str, Callable[[_Reader, HistoryEvent, Any], Awaitable[str]]]] = {
    "workflow_execution_started": _Reader._workflow_execution_started,
    "workflow_execution_completed": _Reader._workflow_execution_completed,
    "workflow_execution_continued_as_new": _Reader._workflow_execution_continued_as_new,
    "workflow_execution_signaled": _Reader._workflow_execution_signaled,
    "upsert_workflow_search_attributes": _Reader._upsert_workflow_search_attributes,
    "activity_task_scheduled": _Reader._activity_task_scheduled,
    "activity_task_started": _Reader._activity_task_started,
    "timer_started": _Reader._timer_started,
    "timer_fired": _Reader._timer_ended,
    "timer_canceled": _Reader._timer_ended,
    "marker_recorded": _Reader._marker_recorded,
}
"""Methods that make the detail of an event, by its kind; for all other kinds the detail is the failure."""


def _type_in_words(event: HistoryEvent, facts: Any) -> str:
    if getattr(facts, "marker_name", None) == _LOCAL_ACTIVITY:
        return "local activity failed" if _reason(facts.failure) else "local activity completed"
    name = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").lower().replace("_", " ")
    return name.replace("workflow execution ", "workflow ").replace("activity task ", "activity ")


def _failure_of(facts: Any) -> str:
    failure = getattr(facts, "failure", None)
    return _reason(failure) if isinstance(failure, Failure) else ""


def _reason(failure: Failure) -> str:
    """Return the message of the innermost cause of a failure that has a message."""
    message = failure.message
    while failure.HasField("cause"):
        failure = failure.cause
        message = failure.message or message
    return message


def _outcome(result: Any) -> str:
    """Return what a scheduling pass decided, or how the run ended."""
    if not isinstance(result, dict):
        return ""
    try:
        return "; ".join(_decisions(result))
    # Whoever may write to Temporal can write a result of any shape.
    except (AttributeError, LookupError, TypeError, ValueError):
        return ""


def _decisions(result: JsonObject) -> Iterator[str]:
    if ready := result.get("ready"):
        yield f"starts {_several(ready, lambda task: _name(task['task_id'], task['map_index']))}"
    if changed := result.get("changed"):
        yield _several(changed, lambda row: f"{_name(row[0], row[1])} {row[2] or 'no status'}")
    if stop := result.get("stop"):
        yield f"stops {_several(stop, lambda key: _name(*key))}"
    state = result.get("run_state", result.get("state"))
    if state not in (None, "running"):
        yield f"run {state}"


def _several(things: Sequence[Any], name: Callable[[Any], str], most: int = 5) -> str:
    more = f" and {len(things) - most} more" if len(things) > most else ""
    return ", ".join(map(name, things[:most])) + more


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _plain(payload: Payload) -> str:
    return payload.data.decode("utf-8", "replace").strip('"')
