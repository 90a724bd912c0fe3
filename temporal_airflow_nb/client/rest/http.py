"""Airflow's REST API over HTTP. Standard library only.

Runs in the user's process. Callers in several threads share the token, without a lock: two threads may request a new
token at the same time, but then each of the two is valid, and the later one stays.
"""

from __future__ import annotations

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

ApiObject = Mapping[str, Any]
"""A JSON object as Airflow's API returns it; Airflow documents its keys."""

_PAGE = 100
# Seconds for each request.
_TIMEOUT = 15.0
_TOKEN, _USER, _PASSWORD = "AIRFLOW_API_TOKEN", "AIRFLOW_API_USER", "AIRFLOW_API_PASSWORD"
_PAUSE = 0.3
_REDIRECTIONS = (301, 302, 303, 307, 308)


def base_address(text: str) -> str:
    """Return the address of an Airflow without the path of its API.

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
    """Return a path, each part quoted.

    >>> path_of("dags", "a b", "dagRuns", "manual__2026-01-01T00:00:00+00:00")
    'dags/a%20b/dagRuns/manual__2026-01-01T00%3A00%3A00%2B00%3A00'
    """
    return "/".join(quote(part, safe="~") for part in parts)


class _Session:
    """The token and the server's clock, which all copies of an API share."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.server_time = datetime.now(timezone.utc)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection.

    A redirected request would send the token to another server, and a POST would become a GET.
    """

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


class RestApi:
    """
    Calls ``/api/v2`` of an Airflow.

    The token is ``$AIRFLOW_API_TOKEN``; if that isn't set, Airflow is asked for a token with ``$AIRFLOW_API_USER`` and
    ``$AIRFLOW_API_PASSWORD``, or without them if it lets everybody in. Safe to use from several threads; a copy shares
    the token, and can have another ``retry_for``.

    Parameters
    ----------
    address
        As in a browser.
    retry_for
        Seconds for which a question that changes nothing is asked again if Airflow can't be reached.
    """

    def __init__(self, address: str, *, retry_for: float = 10.0) -> None:
        self.address = base_address(address)
        self.retry_for = retry_for
        self._session = _Session()

    @property
    def server_time(self) -> datetime:
        """When the server sent its latest answer, by the server's clock, to the second."""
        return self._session.server_time

    def get(self, path: str, *, root: str = "api/v2", **query: Any) -> Any:
        """Return the JSON at a path."""
        given = {name: value for name, value in query.items() if value is not None}
        address = f"{path}?{urlencode(given, doseq=True)}" if given else path
        deadline = time.monotonic() + self.retry_for
        while True:
            try:
                return self.call("GET", address, root=root)
            except ServiceUnavailableError:
                if time.monotonic() + _PAUSE > deadline:
                    raise
                time.sleep(_PAUSE)

    def pages(self, path: str, key: str, *, most: int | None = None, **query: Any) -> Iterator[Any]:
        """Yield the items at a path, or the first ``most`` of them, page by page."""
        offset = 0
        while most is None or offset < most:
            limit = _PAGE if most is None else min(_PAGE, most - offset)
            answer = self.get(path, limit=limit, offset=offset, **query)
            yield from answer[key]
            offset += len(answer[key])
            if not answer[key] or offset >= (answer.get("total_entries") or 0):
                return

    def call(self, method: str, path: str, body: ApiObject | None = None, *, root: str = "api/v2") -> Any:
        """
        Send a request; return its answer.

        Raises
        ------
        ServiceUnavailableError
            Nothing answers.
        RunNotFoundError
            Airflow doesn't have what the path names.
        InvalidInputError
            Airflow refuses the token or the request.
        """
        known = self._session.token
        token = known or self._new_token()
        self._session.token = token
        try:
            return self._send(method, f"{root}/{path}", body, token)
        except urllib.error.HTTPError as error:
            reason = _reason(error)
            # The token may have expired, and the environment may have a new one. A token that was just made isn't
            # replaced, so there is no second attempt.
            if _is_about_token(error, reason) and known and known != os.environ.get(_TOKEN):
                self._session.token = None
                return self.call(method, path, body, root=root)
            self._raise_refusal(error, reason)

    def _new_token(self) -> str:
        if token := os.environ.get(_TOKEN):
            return token
        user, password = os.environ.get(_USER), os.environ.get(_PASSWORD)
        try:
            if user and password:
                answer = self._send("POST", "auth/token", {"username": user, "password": password})
            else:
                answer = self._send("GET", "auth/token")
            return str(answer["access_token"])
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _REDIRECTIONS:
                self._raise_refusal(error, "")
            if error.code == http.client.NOT_FOUND:
                raise self._no_airflow("auth/token") from None
            raise InvalidInputError(
                f"Airflow at {self.address} refuses to issue a token{f' to {user!r}' if user else ''}: "
                f"HTTP {error.code}.",
                hint=f"Set {_TOKEN}, or {_USER} and {_PASSWORD}.",
                address=self.address,
            ) from None
        except (KeyError, TypeError):
            raise self._no_airflow("auth/token") from None

    def _send(self, method: str, path: str, body: ApiObject | None = None, token: str | None = None) -> Any:
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
                    self._session.server_time = parsedate_to_datetime(sent)
        # HTTPError and TimeoutError are OSErrors, so OSError has to come last.
        except urllib.error.HTTPError as error:
            if error.code in (502, 503, 504):
                raise self._unavailable(f"HTTP {error.code}") from None
            raise
        except TimeoutError:
            raise self._unavailable(f"no answer in {_TIMEOUT:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise self._unavailable(str(reason), _tls_hint(reason)) from None
        try:
            if by_line:
                return [json.loads(line) for line in text.splitlines()]
            return json.loads(text) if text else None
        except ValueError:
            raise self._no_airflow(path) from None

    def _raise_refusal(self, error: urllib.error.HTTPError, reason: str) -> NoReturn:
        if error.code in _REDIRECTIONS:
            raise InvalidInputError(
                f"Airflow at {self.address} redirects to {_place(error.headers['Location'])}.",
                hint="Give that address if it is Airflow's. A login page in between can't be passed.",
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
            raise RunNotFoundError(
                reason, hint=f"Check the ids: Airflow at {self.address} doesn't know one of them."
            ) from None
        if error.code < 500:
            raise InvalidInputError(f"Airflow refuses the request: {reason}", status=error.code) from None
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
            f"The server at {self.address}/{path} doesn't have Airflow 3's API.",
            hint='Give the address as in a browser: airflow="https://airflow.example.com"',
            address=self.address,
        )


def _place(location: str | None) -> str:
    """Return where a redirection leads, without its query, which may hold secrets."""
    parts = urlsplit(location or "")
    return f"{parts.scheme}://{parts.hostname}{parts.path}" if parts.hostname else parts.path or "nowhere"


def _tls_hint(reason: Any) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "Trust the authority that signed its certificate: SSL_CERT_FILE=/path/to/ca.pem"
    if isinstance(reason, ssl.SSLError):
        return "If Airflow doesn't use TLS, its address begins with http://."
    if isinstance(reason, (http.client.BadStatusLine, ConnectionResetError)):
        return "If Airflow uses TLS, its address begins with https://."
    return ""


def _is_about_token(error: urllib.error.HTTPError, reason: str) -> bool:
    """Return whether an answer says that the token is missing or invalid."""
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
