"""Calls to the gateway, the door to the warm Airflow process of a stack. Standard library only."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from typing import Any

from temporal_airflow_nb.errors import (
    InvalidInputError,
    ServiceUnavailableError,
    TemporalAirflowError,
    from_dict,
)

# What mustn't be sent twice, and how to find out whether it has arrived.
_NOT_REPEATABLE = {
    "submit": "The run may have been created: look at the list of runs.",
    "mark": "It may have been done: look at the run.",
    "clear": "It may have been done: look at the run.",
    "respond": "The answer may have been taken: look at the task's state.",
}
_HELD_BACK = ("watch", "feed")


def _payload(op: str, body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"`{op}` can't take what JSON can't hold: {error}.") from None


class GatewayClient:
    """Calls operations of a stack's gateway.

    Safe to use from several threads: each call has a connection of its own.

    Parameters
    ----------
    address
        ``host:port``.
    token
        The gateway's secret, from ``stack.json``.
    patience
        Seconds for which a gateway that doesn't listen is tried again: the worker may be restarting.
    """

    def __init__(self, address: str, token: str, *, patience: float = 20.0) -> None:
        self.address = address
        self.production: str | None = None
        self.patience = patience
        self._token = token

    def __repr__(self) -> str:
        return f"GatewayClient({self.address!r})"

    def call(self, op: str, *, timeout: float = 60.0, **body: Any) -> dict[str, Any]:
        """Call an operation and return its answer.

        Parameters
        ----------
        op
            Name of the operation.
        timeout
            Seconds to wait for the answer; for ``watch`` and ``feed``, how long the gateway may hold it back.
        **body
            Arguments of the operation, JSON-able.

        Raises
        ------
        ServiceUnavailableError
            Nothing answers.
        TemporalAirflowError
            The error that the operation reports, as its own class.
        """
        if op in _HELD_BACK:
            body["timeout"] = timeout
            timeout += 10
        payload = _payload(op, body)
        give_up = time.monotonic() + self.patience
        pause = 0.05
        while True:
            sent = False
            connection = http.client.HTTPConnection(self.address, timeout=timeout)
            try:
                connection.connect()
                sent = True
                return self._exchange(connection, op, payload)
            except TimeoutError:
                raise self._unavailable(f"did not answer `{op}` in {timeout:.0f} s") from None
            except (ConnectionError, http.client.BadStatusLine, http.client.IncompleteRead) as error:
                if sent and op in _NOT_REPEATABLE:
                    raise self._unavailable(f"went away during `{op}`", _NOT_REPEATABLE[op]) from error
                if time.monotonic() + pause > give_up:
                    raise self._unavailable("can't be reached") from error
            except OSError as error:
                raise self._unavailable(f"can't be reached: {error}") from error
            finally:
                connection.close()
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _exchange(self, connection: http.client.HTTPConnection, op: str, payload: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        connection.request("POST", f"/v1/{op}", payload, headers)
        response = connection.getresponse()
        text = response.read()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if response.status == 200 and isinstance(answer, dict):
            return answer
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise from_dict(answer["error"])
        if response.status in (401, 403):
            raise self._unavailable("belongs to another stack: it refuses this one's token")
        raise TemporalAirflowError(
            f"The worker at {self.address} answered `{op}` with HTTP {response.status}.",
            hint="See worker.log in the logs of the stack's state folder.",
            address=self.address,
            answer=text[:500].decode("utf-8", "replace"),
        )

    def _unavailable(self, what: str, hint: str = "") -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"The worker at {self.address} {what}.",
            hint=hint
            or "See `temporal-airflow status`, and worker.log in the logs of the stack's state folder.",
            service="worker",
            address=self.address,
        )
