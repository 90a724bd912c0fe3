"""Refuses requests that a page of another site, or another user of this machine, sends to a service of a stack.

Every page in a browser on this machine can send requests to 127.0.0.1, and with a name of its own that it lets point
there (DNS rebinding) it can read the answers as well. A browser tells which page a request comes from: by ``Host``,
``Origin`` and ``Sec-Fetch-Site``, which no script of a page can set. Programs send no ``Origin``, and a loopback
address as ``Host``.

On a JupyterHub the browser is on another machine, and reaches the services through the hub's login by the hub's name:
there any ``Host`` is taken. Imports neither Airflow nor Temporal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from temporal_airflow_nb.config.environment import allowed_hosts, is_on_jupyterhub
from temporal_airflow_nb.connection_owner import is_of_another_user

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PAGE_HINT = (
    "Use the address that `temporal-airflow status` shows. If a proxy of yours serves it under another name, set "
    "TEMPORAL_AIRFLOW_ALLOWED_HOSTS to that name before the stack starts."
)
_USER_HINT = (
    "A stack is for the user who started it, and for root. A proxy before it has to run as one of them."
)
_FRAMES = ("iframe", "frame", "embed", "object", "fencedframe")


def find_refusal(method: str, headers: Iterable[tuple[str, str]]) -> str | None:
    """Return why a request has to be refused; None if it may be answered.

    Parameters
    ----------
    method
        Of the request, in capitals.
    headers
        Names in lower case, and values.

    Examples
    --------
    >>> find_refusal("GET", [("host", "127.0.0.1:8080")])
    >>> find_refusal("POST", [("host", "127.0.0.1:8080"), ("origin", "https://evil.example")])
    "It comes from a page of 'https://evil.example'."
    >>> find_refusal("GET", [("host", "evil.example:8080")])
    "It was sent to the host 'evil.example:8080'."
    """
    headers = list(headers)
    hosts = [value for name, value in headers if name == "host"]
    known = dict(headers)
    if len(hosts) != 1 or not (is_on_jupyterhub() or _is_own(hosts[0])):
        return f"It was sent to the host {', '.join(hosts)!r}."
    site, origin = known.get("sec-fetch-site"), known.get("origin")
    if site in ("same-origin", "none"):
        return None
    if site is not None and method in ("GET", "HEAD") and known.get("sec-fetch-mode") == "navigate":
        # A link in another page, which can't read the page that it leads to. In a frame, though, a page could have the
        # user click what the user doesn't see.
        is_hidden = site == "cross-site" and known.get("sec-fetch-dest") in _FRAMES
        return "It comes from a frame in a page of another site." if is_hidden else None
    if origin is not None:
        return None if _is_page_of(origin, hosts[0], known) else f"It comes from a page of {origin!r}."
    return None if site is None else "It comes from a page of another site."


def _is_own(host: str) -> bool:
    name = _name_of(host)
    return name in _LOOPBACK or _is_allowed(host)


def _is_page_of(origin: str, host: str, headers: Mapping[str, str]) -> bool:
    place = urlsplit(origin).netloc.lower()
    own = [host.lower()]
    if is_on_jupyterhub() and (forwarded := headers.get("x-forwarded-host")):
        own.append(forwarded.lower())
    return bool(place) and (place in own or _is_allowed(place))


def _is_allowed(host: str) -> bool:
    names = {host.lower(), _name_of(host)}
    return any(fnmatchcase(name, pattern) for pattern in allowed_hosts() for name in names if name)


def _name_of(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class ForeignRequestFilter:
    """
    An ASGI middleware that answers the requests which :func:`find_refusal` refuses with 403.

    Parameters
    ----------
    app
        The application that gets all other requests.
    own_user_only
        Whether to refuse requests of other users of this machine as well, as far as the system tells the user: for a
        service without a login.
    """

    def __init__(self, app: App, *, own_user_only: bool = False) -> None:
        self._app = app
        self._own_user_only = own_user_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        why, hint = find_refusal(scope.get("method", "GET"), headers), _PAGE_HINT
        if why is None and self._own_user_only and _is_of_another_user(scope):
            why, hint = "It comes from another user of this machine.", _USER_HINT
        if why is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            body = refusal_text(why, hint).encode()
            head = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 403, "headers": head})
            await send({"type": "http.response.body", "body": body})


def _is_of_another_user(scope: Scope) -> bool:
    client, server = scope.get("client"), scope.get("server")
    return client is not None and server is not None and is_of_another_user(tuple(client), tuple(server))


def refusal_text(why: str, hint: str = _PAGE_HINT) -> str:
    """Return the answer to a request that is refused."""
    return f"This stack doesn't answer the request. {why}\n{hint}\n"
