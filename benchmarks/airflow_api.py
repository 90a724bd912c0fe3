"""Airflow's REST API, as benchmarks and tests call it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

_NOT_FOUND, _CONFLICT, _SERVER_ERROR = 404, 409, 500
# Answers to a repeated request that say that the first one was carried out, although its answer was an error: what was
# to be created is there, what was to be deleted is gone.
_ALREADY_DONE = {"POST": _CONFLICT, "DELETE": _NOT_FOUND}
_TIMEOUT = 60
_PAUSE = 0.2


class ApiError(RuntimeError):
    """Airflow answered with an error; ``status`` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class AirflowApi:
    """A client for the API server at ``url``, with the rights of an administrator.

    Parameters
    ----------
    url
        Address of the UI.
    retry_for
        Seconds for which to repeat a request without an answer, or with the answer that the database is busy.
    """

    def __init__(self, url: str, *, retry_for: float = 0.0) -> None:
        self.url = url
        self.retry_for = retry_for
        self._token: str | None = None

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the answer of ``/api/v2/{path}``."""
        return self.ask(method, f"/api/v2/{path}", body)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the answer of a path; None if an earlier attempt of this call had succeeded unnoticed."""
        deadline = time.monotonic() + self.retry_for
        again = False
        while True:
            try:
                return self.ask_once(method, path, body)
            except ApiError as error:
                if again and error.status == _ALREADY_DONE.get(method):
                    return None
                if error.status < _SERVER_ERROR or time.monotonic() >= deadline:
                    raise
            except OSError:
                if time.monotonic() >= deadline:
                    raise
            again = True
            time.sleep(_PAUSE)

    def ask_once(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the answer of a path, without repeating the request."""
        if self._token is None:
            self._token = self._request("GET", "/auth/token")["access_token"]
        return self._request(method, path, body)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")
            raise ApiError(error.code, f"{method} {path}: {error.code} {detail[:1000]}") from error
