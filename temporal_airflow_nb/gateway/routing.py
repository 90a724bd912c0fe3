"""Adds operations to the gateway's application, and encodes their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI, Response

from temporal_airflow_nb.client.capabilities import Operation

Handler = TypeVar("Handler", bound=Callable[..., Any])


def operation(app: FastAPI, name: Operation) -> Callable[[Handler], Handler]:
    """Return a decorator that serves an operation by a function.

    The function takes a request of :mod:`temporal_airflow_nb.messages.requests`, which FastAPI validates, or nothing.
    FastAPI runs a plain function in a thread of its pool, and a coroutine function in the event loop.
    """

    def add(handler: Handler) -> Handler:
        app.post(f"/v1/{name}", response_model=None)(handler)
        return handler

    return add


def encoded(answer: Mapping[str, object]) -> Response:
    """Return an answer as a JSON response."""
    # FastAPI's own encoder visits each value in Python, which is slow for large runs.
    return Response(msgspec.json.encode(answer), media_type="application/json")
