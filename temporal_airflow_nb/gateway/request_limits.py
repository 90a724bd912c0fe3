"""Limits what a connection to the gateway can hold: the time of a request's head and body, and the size of both.

Every user of this machine can connect. A head that isn't complete in time ends the connection; a body is read only
after the token was checked. All of this runs in the gateway's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from temporal_airflow_nb.messages.requests import MAX_REQUEST_BYTES, TOO_LARGE, TOO_LARGE_HINT

HEAD_SECONDS = 20.0
"""Seconds in which the head of a request has to arrive, from the start of the connection or the previous answer on."""

BODY_SECONDS = 60.0
"""Seconds in which the body of a request has to arrive."""


class TimedProtocol(H11Protocol):
    """The HTTP protocol of uvicorn, with an end for connections that send no complete head of a request.

    uvicorn's own time-out is for idle connections: the first byte of a request ends it. This protocol also limits the
    size of a head, which uvicorn's other one doesn't.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Start to wait for the next request."""
        self._wait_for_head()
        super().on_response_complete()

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._end_without_request)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_without_request(self) -> None:
        # A request that has arrived meanwhile is still being answered: the end of its answer starts another timer.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class BodyLimit:
    """
    Reads the whole body of a request before the application sees the request.

    Parameters
    ----------
    app
        Gets the requests whose body has arrived in time and isn't too large.
    refuse
        Returns the answer to the other ones, from its status, the reason and a hint.
    """

    def __init__(self, app: ASGIApp, refuse: Callable[[int, str, str], ASGIApp]) -> None:
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body of a request, then pass the request on or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(_read(scope, receive), BODY_SECONDS)
        except asyncio.TimeoutError:
            why = f"The request's body didn't arrive in {BODY_SECONDS:.0f} s."
            refusal = self._refuse(408, why, "Send the request again.")
            await refusal(scope, receive, send)
            return
        if body is None:
            refusal = self._refuse(413, TOO_LARGE, TOO_LARGE_HINT)
            await refusal(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, receive_again, send)


async def _read(scope: Scope, receive: Receive) -> bytes | None:
    """Return the body of a request; None if it is too large."""
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > MAX_REQUEST_BYTES:
        return None
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > MAX_REQUEST_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)
