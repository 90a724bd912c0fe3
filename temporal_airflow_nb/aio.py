"""The functions of this package as coroutine functions: ``await ta.aio.up()``.

Each coroutine function has the name, the arguments and the result of a function of :mod:`temporal_airflow_nb`, and runs
it in a thread. A run's methods and properties are coroutine functions in ``run.aio``: ``await run.aio.wait()``,
``await run.aio.tasks()``. They work in a notebook's own event loop. Cancelling one ends the wait only: the function
goes on in its thread.

Examples
--------
>>> import temporal_airflow_nb as ta
>>> await ta.aio.up()                                                # doctest: +SKIP
>>> run = await ta.aio.run_cell(source)                              # doctest: +SKIP
>>> await run.aio.wait(), await run.aio.tasks()                      # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Coroutine
from importlib import import_module
from typing import Any

from temporal_airflow_nb._async import AsyncMethods, coroutine_function
from temporal_airflow_nb.api import FUNCTIONS


class _AsyncRuns(AsyncMethods):
    """``ta.runs`` as coroutine functions: ``await ta.aio.runs("etl")``, ``await ta.aio.runs.latest()``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        return coroutine_function(self._of.__call__)(*args, **kwargs)


def __getattr__(name: str) -> Any:
    if name not in FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = getattr(import_module(FUNCTIONS[name]), name)
    # `runs` is an object that can be called and has methods.
    return _AsyncRuns(function) if name == "runs" else coroutine_function(function)


def __dir__() -> list[str]:
    return sorted({*globals(), *FUNCTIONS})
