"""Makes coroutine functions from ordinary functions and from the methods of an object.

Each call runs in a daemon thread of its own. The thread passes its result to the caller's event loop with
``call_soon_threadsafe``; nothing else is shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any


class AsyncMethods:
    """The methods and properties of an object as coroutine functions.

    Parameters
    ----------
    of
        The object.
    names
        Names of the methods and properties; all public ones if omitted.
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
        return f"<coroutine functions of {self._of!r}>"


def coroutine_function(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a coroutine function that runs a function in a thread of its own.

    The thread is a daemon: the process can end while the function runs.
    """

    @functools.wraps(function)
    async def run_in_thread(*args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()
        # ipykernel keeps the cell to which output belongs in the context.
        context = contextvars.copy_context()

        def settle(result: Any, error: BaseException | None) -> None:
            # Called in the loop's thread, because a future isn't thread-safe. It is done if the caller has cancelled
            # the wait.
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
            # Every error: it is raised where the call is awaited.
            except BaseException as raised:
                error = raised
            # RuntimeError: the loop was closed before the function ended, and nothing awaits the result any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, error)

        # Not `asyncio.to_thread`: at its end, the process would wait for the threads of that pool.
        threading.Thread(target=work, name=f"temporal-airflow-{function_name}", daemon=True).start()
        return await outcome

    function_name = getattr(function, "__name__", "call")
    run_in_thread.__doc__ = f"``{function_name}`` as a coroutine function.\n\n{function.__doc__ or ''}"
    return run_in_thread
