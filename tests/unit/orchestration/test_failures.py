"""The failures that a worker reports to Temporal."""

from __future__ import annotations

import pytest
from temporalio.api.failure.v1 import Failure
from temporalio.converter import PayloadConverter
from temporalio.exceptions import ApplicationError

from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.orchestration.failures import PrivateFailureConverter

SECRET = "s3cret"


def converted(error: BaseException) -> Failure:
    failure = Failure()
    PrivateFailureConverter().to_failure(error, PayloadConverter.default, failure)
    return failure


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause  # s3cret in a line of the user's code
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        type("Odd", (Exception,), {"__module__": "temporalio_like", "message": SECRET})(SECRET),
        raised(RuntimeError(SECRET), ValueError(SECRET)),
        raised(InvalidInputError("Ours."), ValueError(SECRET)),
        raised(ApplicationError("Ours."), raised(ValueError(SECRET))),
        SystemExit(SECRET),
    ],
)
def test_a_foreign_message_doesn_t_reach_temporal(error):
    failure = converted(error)
    assert SECRET.encode() not in failure.SerializeToString()
    assert failure.HasField("application_failure_info")


def test_a_foreign_exception_in_whose_handling_another_one_was_raised_is_private():
    try:
        try:
            raise ValueError(SECRET)
        except ValueError:
            raise ApplicationError("Ours.")  # noqa: B904
    except ApplicationError as error:
        failure = converted(error)
    assert failure.message == "Ours."
    assert failure.cause.message == "ValueError: see the worker's log"
    assert SECRET.encode() not in failure.SerializeToString()


def test_messages_of_this_package_and_places_in_the_code_are_told():
    failure = converted(raised(InvalidInputError("There is no pool 'small'.")))
    assert failure.message == "There is no pool 'small'."
    assert failure.application_failure_info.type == "InvalidInputError"
    assert "in raised" in failure.stack_trace
