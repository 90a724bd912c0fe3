"""Stands before Temporal's UI, and refuses requests that pages of other sites send.

The UI has no login and answers for every host name: a page that lets a name of its own point to this machine could read
each history and cancel each workflow. The server of the UI therefore listens on a loopback address that no page can
guess, and this proxy on the address that links name.

The proxy has a thread with an event loop in the worker process. It reads the head of one request for each connection,
and then passes bytes on in both directions until the server has closed the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.foreign_requests import find_refusal, refusal_text

_HEAD_SECONDS = 20.0
_IDLE_SECONDS = 300.0
_MAX_HEAD = 64 * 1024
_CHUNK = 64 * 1024
# Headers about this connection alone; the one to the server ends with its answer.
_OF_CONNECTION = ("connection", "keep-alive", "proxy-connection", "upgrade")


class UiProxy:
    """
    Serves Temporal's UI on another address, in its own thread.

    Parameters
    ----------
    address
        Host and port to listen on.
    server
        Host and port of the UI's server.
    """

    def __init__(self, address: tuple[str, int], server: tuple[str, int]) -> None:
        self._address = address
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="temporal-ui", daemon=True)

    def start(self) -> None:
        """Start serving; return as soon as the port answers.

        Raises
        ------
        InvalidInputError
            Another program has the port. The stack manager, which chose it, tries another one.
        """
        self._thread.start()
        self._listening.wait()
        if self._error is not None:
            raise InvalidInputError(
                f"The port of Temporal's UI can't be used: {self._error.strerror}.",
                hint="Start the stack again.",
            )

    def stop(self) -> None:
        """Ask the proxy to end; don't wait, because the process ends anyway."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        host, port = self._address
        try:
            self._loop.run_until_complete(asyncio.start_server(self._serve, host, port, limit=_MAX_HEAD))
        except OSError as error:
            self._error = error
            return
        finally:
            self._listening.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_SECONDS)
            request = _read_head(head)
            if request is None:
                await _answer(writer, "400 Bad Request", "The head of the request can't be read.\n")
            elif why := find_refusal(request[0].partition(" ")[0], request[1]):
                await _answer(writer, "403 Forbidden", refusal_text(why))
            else:
                await self._pass_on(_write_head(*request), reader, writer)
        # The browser has gone, sends nothing, or sends a head that is too long.
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass
        finally:
            writer.close()

    async def _pass_on(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer, server = await asyncio.open_connection(*self._server)
        except OSError:
            await _answer(
                writer, "502 Bad Gateway", "Temporal's server doesn't answer. It may be starting.\n"
            )
            return
        try:
            server.write(head)
            body = asyncio.ensure_future(_copy(reader, server))
            await _copy(answer, writer)
            body.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.TimeoutError):
                await body
        finally:
            server.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await asyncio.wait_for(source.read(_CHUNK), _IDLE_SECONDS):
        target.write(data)
        await target.drain()


async def _answer(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    body = text.encode()
    writer.write(
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n".encode()
        + body
    )
    await writer.drain()


def _read_head(head: bytes) -> tuple[str, list[tuple[str, str]]] | None:
    """Return the request line, and the headers with names in lower case; None if the head isn't plain HTTP/1.1.

    What is strict here can't be read in another way by the server behind.
    """
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or any(character <= " " for character in name):
            return None
        headers.append((name.lower(), value.strip(" \t")))
    if any(character in line for line in (first, *lines) for character in "\r\n\0"):
        return None
    method, _, rest = first.partition(" ")
    return (first, headers) if method.isalpha() and rest.startswith("/") else None


def _write_head(first: str, headers: list[tuple[str, str]]) -> bytes:
    kept = [f"{name}: {value}" for name, value in headers if name not in _OF_CONNECTION]
    return "\r\n".join([first, *kept, "connection: close", "", ""]).encode("latin-1")
