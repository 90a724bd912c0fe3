"""Answers that are held back until something has changed in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fastapi.concurrency import run_in_threadpool

from temporal_airflow_nb.tasks.database import commit_count

T = TypeVar("T")

_NOTICE_SECONDS = 0.05
# What other processes write, a scheduler or another worker, is seen at this interval.
_WATCH_SECONDS = 1.0
# A look that takes long, at a run with thousands of tasks, doesn't keep a core busy.
_REST = 2.0


async def long_poll(look: Callable[[], tuple[T, bool]], timeout: float) -> T:
    """
    Look whenever something may have changed; return what was seen when it was news, or after ``timeout``.

    Parameters
    ----------
    look
        Reads the database, in a thread; returns what it saw and whether that is news.
    timeout
        Seconds.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + timeout
    while True:
        seen, began = commit_count(), clock()
        answer, is_news = await run_in_threadpool(look)
        ended = clock()
        if is_news or ended >= end:
            return answer
        looks_again = ended + _WATCH_SECONDS
        while commit_count() == seen and clock() < min(end, looks_again):
            await asyncio.sleep(_NOTICE_SECONDS)
        # What follows at once goes into the same answer.
        await asyncio.sleep(max(_NOTICE_SECONDS, min(_REST * (ended - began), _WATCH_SECONDS)))
