"""Keeps user data out of the failures that a worker reports to Temporal, which stores them in histories.

The message of an exception may quote any value: a row of the database, a conf, a line of the user's code. Temporal gets
the class of such an exception and the places in the code; the worker's log has the rest.
"""

from __future__ import annotations

import dataclasses
import traceback

from temporalio.api.failure.v1 import Failure
from temporalio.client import Client
from temporalio.converter import DefaultFailureConverter, PayloadConverter

# Exceptions of these packages have messages that consist of ids, states and times, or of Temporal's own terms.
_KNOWN = ("temporal_airflow_nb", "temporalio")


class PrivateFailureConverter(DefaultFailureConverter):
    """Converts exceptions without the messages of foreign ones, and without lines of source code."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        """Convert an exception; called again by the base class for each cause."""
        super().to_failure(exception, payload_converter, failure)
        if getattr(exception, "failure", None) is not None:
            # It came from Temporal: the worker that reported it has converted it.
            return
        if type(exception).__module__.partition(".")[0] not in _KNOWN:
            failure.message = f"{type(exception).__name__}: see the worker's log"
        failure.stack_trace = "\n".join(
            f'File "{frame.filename}", line {frame.lineno}, in {frame.name}'
            for frame in traceback.extract_tb(exception.__traceback__)
        )


def with_private_failures(client: Client) -> Client:
    """Return a client for workers that uses the connection of ``client`` and :class:`PrivateFailureConverter`."""
    config = client.config()
    config["data_converter"] = dataclasses.replace(
        client.data_converter, failure_converter_class=PrivateFailureConverter
    )
    return Client(**config)
