"""The gateway's operations behind a live grid: what changes, one task in detail, a log that grows."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from temporal_airflow_nb.stack.feed import Feeds, Pages
from temporal_airflow_nb.stack.long_poll import long_poll


class _Feed(BaseModel):
    dag_id: str
    run_id: str
    runs: Annotated[int, Field(ge=1, le=1_000)] = 14
    after: str | None = None
    timeout: float = 30.0


def routes(app: FastAPI, pages: Pages) -> None:
    """Add the operations; ``pages`` tells the addresses of UIs."""
    feeds = Feeds(pages)

    @app.post("/v1/feed")
    async def feed(body: _Feed) -> Response:
        grid = (body.dag_id, body.run_id, body.runs)
        answer = await long_poll(lambda: feeds.changes(*grid, body.after), body.timeout)
        return Response(await run_in_threadpool(json.dumps, answer), media_type="application/json")
