"""Waits with the answer to a request until the database has changed.

The coroutine runs in the gateway's event loop and queries the database in threads. While it waits, it only compares the
number of commits in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fastapi.concurrency import run_in_threadpool

from temporal_airflow_nb.tasks.database import commit_count

T = TypeVar("T")

_NOTICE_SECONDS = 0.05
# Changes by other processes, such as a scheduler or another worker, are seen at this interval.
_WATCH_SECONDS = 1.0
# The pause after a slow reading, of a run with thousands of tasks for example, as a multiple of the reading's time.
_PAUSES_PER_COST = 2.0


async def long_poll(read: Callable[[], tuple[T, bool]], timeout: float) -> T:
    """
    Read after each possible change until the result is new or the time is over; return the result.

    Parameters
    ----------
    read
        Reads the database, in a thread; returns the result and whether it is new.
    timeout
        Seconds.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + timeout
    while True:
        # Before the reading: a commit during it is followed by another reading.
        seen, began = commit_count(), clock()
        answer, is_news = await run_in_threadpool(read)
        ended = clock()
        if is_news or ended >= end:
            return answer
        next_reading = ended + _WATCH_SECONDS
        while commit_count() == seen and clock() < min(end, next_reading):
            await asyncio.sleep(_NOTICE_SECONDS)
        # Commits in quick succession share the next reading.
        await asyncio.sleep(max(_NOTICE_SECONDS, min(_PAUSES_PER_COST * (ended - began), _WATCH_SECONDS)))
