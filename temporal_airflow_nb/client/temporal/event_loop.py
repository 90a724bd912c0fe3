"""Runs coroutines with a Temporal client in an event loop that has a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from temporal_airflow_nb.config.temporal import connect_client
from temporal_airflow_nb.errors import ServiceUnavailableError

T = TypeVar("T")

# Seconds that a coroutine may take beyond its timeout: connecting may take 10 s.
_GRACE = 15.0


class EventLoopThread:
    """
    Runs coroutines with a client that is connected when it is first needed.

    The loop runs in a daemon thread. Callers in any thread use it; ``_lock`` protects its start and its end.
    ``_connecting`` belongs to the loop and lets one coroutine connect while the others wait.

    Parameters
    ----------
    settings
        Arguments of :func:`~temporal_airflow_nb.config.temporal.connect_client`.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._connecting = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None

    def run(self, use: Callable[[Client], Awaitable[T]], timeout: float) -> T:
        """Run ``use`` with the client; return its result.

        Parameters
        ----------
        use
            Called in the loop.
        timeout
            Seconds that it may take; 15 s more are granted for the answer.

        Raises
        ------
        ServiceUnavailableError
            Temporal can't be reached, or doesn't answer in time.
        """
        # Not asyncio.run: a notebook's event loop may run in the caller's thread.
        future = asyncio.run_coroutine_threadsafe(self._use(use), self._started())
        try:
            return future.result(timeout + _GRACE)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise self._unavailable(f"didn't answer in {timeout + _GRACE:.0f} s") from None
        except RPCError as error:
            if (
                error.status == RPCStatusCode.PERMISSION_DENIED
                or error.status == RPCStatusCode.UNAUTHENTICATED
            ):
                raise self._unavailable(
                    f"refuses this client: {error.message}", "Check the API key or the certificate."
                ) from error
            raise self._unavailable(f"can't answer: {error.message}") from error
        except BaseException:
            # A KeyboardInterrupt, too: the coroutine must not go on when nothing waits for it.
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop; the next call starts another."""
        with self._lock:
            loop, self._loop, self._client = self._loop, None, None
        if loop is not None:
            # Called in another thread than the loop's, where `loop.stop` itself isn't allowed.
            loop.call_soon_threadsafe(loop.stop)

    async def _use(self, use: Callable[[Client], Awaitable[T]]) -> T:
        async with self._connecting:
            if self._client is None:
                self._client = await connect_client(**self._settings)
            client = self._client
        return await use(client)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                # A new lock, too: an asyncio.Lock belongs to the first loop in which a coroutine waits for it.
                self._loop, self._connecting = asyncio.new_event_loop(), asyncio.Lock()
                threading.Thread(target=_serve, args=(self._loop,), name="temporal", daemon=True).start()
            return self._loop

    def _unavailable(self, what: str, hint: str = "") -> ServiceUnavailableError:
        address = self._client.service_client.config.target_host if self._client else ""
        return ServiceUnavailableError(
            f"Temporal at {address} {what}.",
            hint=hint or "Check TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE or the profile, and whether it runs.",
            service="temporal",
            address=address,
        )


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    # `loop.stop` leaves tasks unfinished; they have to end before the loop can be closed.
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
