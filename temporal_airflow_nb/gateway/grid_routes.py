"""The gateway's operations for a live grid: its changes, a task in detail, a growing log."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool

from temporal_airflow_nb.gateway import task_details
from temporal_airflow_nb.gateway.grid_view import GridViews, Pages
from temporal_airflow_nb.gateway.log_reader import LogTails
from temporal_airflow_nb.gateway.long_poll import long_poll
from temporal_airflow_nb.gateway.routing import encoded, operation
from temporal_airflow_nb.messages.requests import GetGridChanges, TailLog, TryRef


def add_routes(app: FastAPI, pages: Pages) -> None:
    """Add the operations; ``pages`` returns the addresses of UIs."""
    views, tails = GridViews(pages), LogTails()

    @operation(app, "get_grid_changes")
    async def get_grid_changes(request: GetGridChanges) -> Response:
        answer = await long_poll(lambda: views.changes(request), request.timeout)
        # In a thread, because a large answer takes a while to encode.
        return await run_in_threadpool(encoded, answer)

    @operation(app, "get_task")
    def get_task(request: TryRef) -> Response:
        return encoded(task_details.task(request))

    @operation(app, "tail_log")
    def tail_log(request: TailLog) -> Response:
        return encoded(tails.read(request))
