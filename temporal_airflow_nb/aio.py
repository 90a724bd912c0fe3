"""The functions of this package as coroutine functions, for code that must not block: ``await ta.aio.up()``.

Each has the name, the arguments and the result of its twin in :mod:`temporal_airflow_nb`, and runs in a thread. A run's
methods and properties have theirs in ``run.aio``: ``await run.aio.wait()``, ``await run.aio.tasks()``. They work in a
notebook's own loop. Cancelling one stops the waiting alone: what was asked for goes on.

Examples
--------
>>> import temporal_airflow_nb as ta
>>> await ta.aio.up()                                                # doctest: +SKIP
>>> run = await ta.aio.run_cell(source)                              # doctest: +SKIP
>>> await run.aio.wait(), await run.aio.tasks()                      # doctest: +SKIP
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import temporal_airflow_nb

_SYNCHRONOUS = ("load_ipython_extension", "unload_ipython_extension", "aio")


class Twins:
    """What an object's methods, and properties, are as coroutine functions.

    Parameters
    ----------
    of
        The object.
    names
        Those that there are; the public ones where left out.
    """

    def __init__(self, of: Any, names: list[str] | None = None) -> None:
        self._of = of
        self._names = names if names is not None else [name for name in dir(type(of)) if name[0] != "_"]

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name.startswith("_") or name not in self._names:
            raise AttributeError(f"{self!r} has no {name!r}")
        known = getattr(type(self._of), name, None)
        if not callable(known) and isinstance(known, (property, functools.cached_property)):

            def read() -> Any:
                return getattr(self._of, name)

            read.__name__ = name
            read.__doc__ = known.__doc__
            return coroutine_function(read)
        return coroutine_function(getattr(self._of, name))

    def __dir__(self) -> list[str]:
        return sorted(self._names)

    def __repr__(self) -> str:
        return f"<twins of {self._of!r}>"


def coroutine_function(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a function's twin: it runs in a thread of its own, which doesn't hold the process up at its end."""

    @functools.wraps(function)
    async def twin(*args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def settle(result: Any, error: BaseException | None) -> None:
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        def work() -> None:
            result, error = None, None
            try:
                result = context.run(function, *args, **kwargs)
            except BaseException as raised:
                error = raised
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, error)

        threading.Thread(target=work, name=f"temporal-airflow-{function_name}", daemon=True).start()
        return await outcome

    function_name = getattr(function, "__name__", "call")
    twin.__doc__ = f"``{function_name}`` as a coroutine function.\n\n{function.__doc__ or ''}"
    return twin


def __getattr__(name: str) -> Any:
    if name in temporal_airflow_nb.__all__ and name not in _SYNCHRONOUS:
        found = getattr(temporal_airflow_nb, name)
        if name == "runs":
            return _Runs(found)
        if callable(found) and not isinstance(found, type):
            return coroutine_function(found)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Runs(Twins):
    """``ta.runs`` as coroutine functions: ``await ta.aio.runs("etl")``, ``await ta.aio.runs.latest()``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        return coroutine_function(self._of.__call__)(*args, **kwargs)


def __dir__() -> list[str]:
    names = [name for name in temporal_airflow_nb.__all__ if name not in _SYNCHRONOUS]
    return sorted({*globals(), *(name for name in names if name[0].islower())})
