"""The gateway's operations behind a live grid: what changes, one task in detail, a log that grows."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from temporal_airflow_nb.gateway import task_details
from temporal_airflow_nb.gateway.grid_feed import Feeds, Pages
from temporal_airflow_nb.gateway.log_reader import LogTails
from temporal_airflow_nb.gateway.long_poll import long_poll


class _Feed(BaseModel):
    dag_id: str
    run_id: str
    runs: Annotated[int, Field(ge=1, le=1_000)] = 14
    after: str | None = None
    timeout: float = 30.0


class _Try(BaseModel):
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int | None = None


class _LogTail(_Try):
    after: Annotated[int, Field(ge=0)] = 0


def routes(app: FastAPI, pages: Pages) -> None:
    """Add the operations; ``pages`` tells the addresses of UIs."""
    feeds, tails = Feeds(pages), LogTails()

    @app.post("/v1/feed")
    async def feed(body: _Feed) -> Response:
        grid = (body.dag_id, body.run_id, body.runs)
        answer = await long_poll(lambda: feeds.changes(*grid, body.after), body.timeout)
        return Response(await run_in_threadpool(msgspec.json.encode, answer), media_type="application/json")

    @app.post("/v1/task")
    def task(body: _Try) -> dict[str, Any]:
        return task_details.task(**body.model_dump())

    @app.post("/v1/log_tail")
    def log_tail(body: _LogTail) -> dict[str, Any]:
        return tails.read(**body.model_dump())
