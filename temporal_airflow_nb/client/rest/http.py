"""Airflow's REST API over HTTP. Standard library only."""

from __future__ import annotations

import copy
import http.client
import json
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from temporal_airflow_nb.errors import (
    InvalidInputError,
    RunNotFoundError,
    ServiceUnavailableError,
    TemporalAirflowError,
)

_PAGE = 100
_TIMEOUT = 15.0
_TOKEN, _USER, _PASSWORD = "AIRFLOW_API_TOKEN", "AIRFLOW_API_USER", "AIRFLOW_API_PASSWORD"
_PAUSE = 0.3
_REDIRECTIONS = (301, 302, 303, 307, 308)


def base_address(text: str) -> str:
    """Return the address of an Airflow from what a user gave: without the API's path, or a slash at its end.

    >>> base_address("https://airflow.example.com/api/v2/")
    'https://airflow.example.com'

    Raises
    ------
    InvalidInputError
        It isn't an address, or has a password in it.
    """
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInputError(
            f"{text!r} isn't the address of an Airflow.",
            hint='Give one as in a browser: airflow="https://airflow.example.com"',
            address=text,
        )
    if parts.username or parts.password:
        raise InvalidInputError(
            f"The address of the Airflow at {parts.hostname} has a user or a password in it.",
            hint=f"Leave them out, and set {_USER} and {_PASSWORD}, or {_TOKEN}.",
        )
    path = parts.path.rstrip("/").removesuffix("/api/v2").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def path_of(*parts: str) -> str:
    """Return a path of which each part is quoted.

    >>> path_of("dags", "a b", "dagRuns", "manual__2026-01-01T00:00:00+00:00")
    'dags/a%20b/dagRuns/manual__2026-01-01T00%3A00%3A00%2B00%3A00'
    """
    return "/".join(quote(part, safe="~") for part in parts)


class _Shared:
    """What all who ask the same Airflow share."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.server_time = datetime.now(timezone.utc)


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it would take the token elsewhere, and make a GET of a POST."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_Straight)


class RestApi:
    """
    Calls ``/api/v2`` of an Airflow.

    The token is ``$AIRFLOW_API_TOKEN``; where that isn't set, it is asked for with ``$AIRFLOW_API_USER`` and
    ``$AIRFLOW_API_PASSWORD``, or without them of an Airflow that lets everybody in. Safe in threads.

    Parameters
    ----------
    address
        As in a browser.
    patience
        Seconds for which a question that changes nothing is asked again where nobody listens.
    """

    def __init__(self, address: str, *, patience: float = 10.0) -> None:
        self.address = base_address(address)
        self.patience = patience
        self._shared = _Shared()

    def with_patience(self, patience: float) -> RestApi:
        """Return the same API, asked with another patience."""
        other = copy.copy(self)
        other.patience = patience
        return other

    @property
    def server_time(self) -> datetime:
        """When the server sent its latest answer, by its own clock, to the second."""
        return self._shared.server_time

    def get(self, path: str, *, root: str = "api/v2", **query: Any) -> Any:
        """Return what a path holds."""
        given = {name: value for name, value in query.items() if value is not None}
        address = f"{path}?{urlencode(given, doseq=True)}" if given else path
        give_up = time.monotonic() + self.patience
        while True:
            try:
                return self.call("GET", address, root=root)
            except ServiceUnavailableError:
                if time.monotonic() + _PAUSE > give_up:
                    raise
                time.sleep(_PAUSE)

    def pages(self, path: str, key: str, *, most: int | None = None, **query: Any) -> Iterator[Any]:
        """Yield all that a path holds, or the first ``most`` of it, page by page."""
        offset = 0
        while most is None or offset < most:
            limit = _PAGE if most is None else min(_PAGE, most - offset)
            answer = self.get(path, limit=limit, offset=offset, **query)
            yield from answer[key]
            offset += len(answer[key])
            if not answer[key] or offset >= (answer.get("total_entries") or 0):
                return

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, root: str = "api/v2"
    ) -> Any:
        """
        Send a request; return its answer.

        Raises
        ------
        ServiceUnavailableError
            Nobody answers.
        RunNotFoundError
            There is no such thing.
        InvalidInputError
            The token is refused, or what was asked for is.
        """
        known = self._shared.token
        token = known or self._new_token()
        self._shared.token = token
        try:
            return self._send(method, f"{root}/{path}", body, token)
        except urllib.error.HTTPError as error:
            reason = _reason(error)
            # One that was asked for may have expired, and there may be a new one in the environment.
            if _is_about_token(error, reason) and known and known != os.environ.get(_TOKEN):
                self._shared.token = None
                return self.call(method, path, body, root=root)
            self._refused(error, reason)

    def _new_token(self) -> str:
        if token := os.environ.get(_TOKEN):
            return token
        user, password = os.environ.get(_USER), os.environ.get(_PASSWORD)
        try:
            if user and password:
                answer = self._send("POST", "auth/token", {"username": user, "password": password})
            else:
                answer = self._send("GET", "auth/token")
            return answer["access_token"]
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _REDIRECTIONS:
                self._refused(error, "")
            if error.code == http.client.NOT_FOUND:
                raise self._no_airflow("auth/token") from None
            raise InvalidInputError(
                f"Airflow at {self.address} gives no token{f' to {user!r}' if user else ''}: HTTP {error.code}.",
                hint=f"Set {_TOKEN}, or {_USER} and {_PASSWORD}.",
                address=self.address,
            ) from None
        except (KeyError, TypeError):
            raise self._no_airflow("auth/token") from None

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, token: str | None = None
    ) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/{path}", content, headers, method=method)
        try:
            with _opener.open(request, timeout=_TIMEOUT) as response:
                text = response.read()
                by_line = response.headers.get_content_type() == "application/x-ndjson"
                if sent := response.headers.get("Date"):
                    self._shared.server_time = parsedate_to_datetime(sent)
        except urllib.error.HTTPError as error:
            if error.code in (502, 503, 504):
                raise self._unavailable(f"HTTP {error.code}") from None
            raise
        except TimeoutError:
            raise self._unavailable(f"no answer in {_TIMEOUT:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise self._unavailable(str(reason), _encryption_hint(reason)) from None
        try:
            if by_line:
                return [json.loads(line) for line in text.splitlines()]
            return json.loads(text) if text else None
        except ValueError:
            raise self._no_airflow(path) from None

    def _refused(self, error: urllib.error.HTTPError, reason: str) -> NoReturn:
        if error.code in _REDIRECTIONS:
            raise InvalidInputError(
                f"Airflow at {self.address} isn't there: it redirects to {_place(error.headers['Location'])}.",
                hint="Give that address, if it is the Airflow's; a login page in between needs another way in.",
                address=self.address,
            ) from None
        if _is_about_token(error, reason):
            raise InvalidInputError(
                f"Airflow at {self.address} refuses the token.",
                hint=f"Set {_TOKEN} to a valid one, or {_USER} and {_PASSWORD}.",
                address=self.address,
            ) from None
        if error.code == http.client.FORBIDDEN:
            raise InvalidInputError(
                f"Airflow at {self.address} doesn't allow this user to do that: {reason}",
                hint="Ask for the permission, or use another user's token.",
                address=self.address,
            ) from None
        if error.code == http.client.NOT_FOUND:
            raise RunNotFoundError(reason, hint=f"Airflow at {self.address} has no such thing.") from None
        if error.code < 500:
            raise InvalidInputError(f"Airflow refuses that: {reason}", status=error.code) from None
        raise TemporalAirflowError(
            f"Airflow at {self.address} answered with HTTP {error.code}: {reason}",
            hint="The API server's log has the details.",
            address=self.address,
        ) from None

    def _unavailable(self, reason: str, hint: str = "") -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"Airflow at {self.address} can't be reached: {reason}",
            hint=hint or "Check the address, and whether its API server runs.",
            service="airflow",
            address=self.address,
        )

    def _no_airflow(self, path: str) -> InvalidInputError:
        return InvalidInputError(
            f"What answers at {self.address}/{path} isn't Airflow 3's API.",
            hint='Give the address as in a browser: airflow="https://airflow.example.com"',
            address=self.address,
        )


def _place(location: str | None) -> str:
    """Return where a redirection leads, without what it says there: that may be secret."""
    parts = urlsplit(location or "")
    return f"{parts.scheme}://{parts.hostname}{parts.path}" if parts.hostname else parts.path or "nowhere"


def _encryption_hint(reason: Any) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "Have the authority that signed its certificate trusted: SSL_CERT_FILE=/path/to/ca.pem"
    if isinstance(reason, ssl.SSLError):
        return "If it isn't encrypted, its address begins with http://."
    if isinstance(reason, (http.client.BadStatusLine, ConnectionResetError)):
        return "If it is encrypted, its address begins with https://."
    return ""


def _is_about_token(error: urllib.error.HTTPError, reason: str) -> bool:
    """Return whether an answer says that the token is none, or isn't valid any more."""
    return error.code == http.client.UNAUTHORIZED or (error.code == http.client.FORBIDDEN and "JWT" in reason)


def _reason(error: urllib.error.HTTPError) -> str:
    text = error.read()
    try:
        detail = json.loads(text)["detail"]
    except (ValueError, KeyError, TypeError):
        return text[:300].decode("utf-8", "replace") or str(error.reason)
    if isinstance(detail, list):
        return "; ".join(
            str(item.get("msg", item)) if isinstance(item, dict) else str(item) for item in detail
        )
    if isinstance(detail, dict):
        return str(detail.get("reason") or detail.get("message") or detail)
    return str(detail)
