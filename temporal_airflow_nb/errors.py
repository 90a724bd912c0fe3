"""The errors that this package raises on purpose.

The command line prints an error's message and exits with its ``exit_code``. A notebook shows the message without a
traceback. Between processes an error travels as JSON: :meth:`TemporalAirflowError.to_dict` and :func:`from_dict`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypedDict

from temporal_airflow_nb.printable_text import make_printable


class ErrorData(TypedDict, total=False):
    """An error as JSON-able data."""

    code: str
    message: str
    hint: str
    facts: dict[str, Any]


class TemporalAirflowError(Exception):
    """Base class of every error of this package.

    Parameters
    ----------
    message
        The problem, as a sentence that names the object and the place.
    hint
        The next step, as a sentence. Shown on a line of its own.
    **facts
        The values in the message, also available as ``error.facts``.

    Examples
    --------
    >>> error = DagNotFoundError("There is no DAG 'etl' in dags/x.py.", hint="It defines: load.", dag_id="etl")
    >>> error.exit_code, error.facts["dag_id"]
    (2, 'etl')
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts

    def __str__(self) -> str:
        # `message` keeps the values as they are; this is what a terminal and a notebook show.
        return make_printable(f"{self.message}\n  {self.hint}" if self.hint else self.message)

    def _render_traceback_(self) -> list[str]:
        """Return the message without a traceback; IPython calls this method of an exception.

        A traceback through this package says nothing about the user's input, which is the cause.
        """
        return [f"{type(self).__name__}: {self}"]

    def to_dict(self) -> ErrorData:
        """Return the error as JSON-able data, for :func:`from_dict` in another process."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "facts": self.facts}


class InvalidInputError(TemporalAirflowError):
    """A path, option, ``conf`` or setting of the user can't be used."""

    exit_code = 2
    code = "invalid_input"


class DagFileError(InvalidInputError):
    """A DAG file is missing, isn't Python, or doesn't import. ``facts``: ``path``, ``line``."""

    code = "dag_file"


class PreflightError(DagFileError):
    """The DAG can't be run as it is. ``facts``: ``findings``, a list of dicts, and ``path``."""

    code = "preflight"

    @classmethod
    def of(cls, findings: Sequence[Any], path: str | None = None) -> PreflightError:
        """Return the error for findings in a file or, without a ``path``, in a cell."""

        def message_of(finding: Any) -> str:
            if finding.line is None:
                return str(finding.message)
            place = f"cell line {finding.line}" if path is None else f"{path}, line {finding.line}"
            return f"{place}: {finding.message}"

        facts: dict[str, Any] = {"findings": [finding.to_dict() for finding in findings], "path": path}
        if len(findings) == 1:
            return cls(message_of(findings[0]), hint=findings[0].hint, **facts)
        lines = [f"{message_of(finding)}\n    {finding.hint}".rstrip() for finding in findings]
        return cls(f"The DAG has {len(findings)} errors:\n  " + "\n  ".join(lines), **facts)


class DagNotFoundError(InvalidInputError):
    """There is no such DAG, or none of several was chosen. ``facts``: ``dag_id``, ``dag_ids``."""

    code = "dag_not_found"


class InvalidConfError(InvalidInputError):
    """``conf`` isn't a JSON object, or doesn't fit the DAG's params."""

    code = "invalid_conf"

    @classmethod
    def of_params(cls, dag_id: str, error: Exception) -> InvalidConfError:
        """Return the error for a ``conf`` that doesn't fit a DAG's params, with Airflow's reason."""
        reason = next(iter(str(error).splitlines()), "")
        return cls(
            f"conf doesn't fit the params of DAG {dag_id!r}: {reason}",
            hint="Correct it with --params or --conf.",
            dag_id=dag_id,
        )


class RunNotFoundError(InvalidInputError):
    """There is no such run, or no such task in it. ``facts``: ``dag_id``, ``run_id``, ``task_id``."""

    code = "run_not_found"


class UnavailableHereError(InvalidInputError):
    """The operation needs a service that this connection doesn't reach. ``facts``: ``op``."""

    code = "unavailable_here"


class UnsupportedVersionError(InvalidInputError):
    """The installed Airflow has another minor version than the one that this package supports."""

    code = "unsupported_version"


class ServiceUnavailableError(TemporalAirflowError):
    """A service can't be reached, or doesn't start. ``facts``: ``service``, ``address``."""

    exit_code = 3
    code = "service_unavailable"


class RunTimeoutError(TemporalAirflowError, TimeoutError):
    """A run hasn't ended within the timeout of :meth:`Run.wait`. The run goes on."""

    code = "run_timeout"


@contextmanager
def interruptible(meaning: str) -> Iterator[None]:
    """Give a ``KeyboardInterrupt`` of the block a message, which IPython shows without a traceback.

    Parameters
    ----------
    meaning
        The message: what continues after the interrupt, and what doesn't.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        # An inner block has given it a message, which is more precise.
        if hasattr(error, "_render_traceback_"):
            raise
        interrupt = KeyboardInterrupt(meaning)
        interrupt._render_traceback_ = lambda: [f"KeyboardInterrupt: {meaning}"]  # type: ignore[attr-defined]
        raise interrupt from None


def _every_class(base: type[TemporalAirflowError]) -> list[type[TemporalAirflowError]]:
    return [base, *(c for sub in base.__subclasses__() for c in _every_class(sub))]


def from_dict(data: ErrorData) -> TemporalAirflowError:
    """Return the error that :meth:`TemporalAirflowError.to_dict` described.

    Missing entries and unknown codes are allowed: the other process may have another version of this package.
    """
    by_code = {c.code: c for c in _every_class(TemporalAirflowError)}
    cls = by_code.get(data.get("code", ""), TemporalAirflowError)
    return cls(data.get("message", ""), hint=data.get("hint", ""), **data.get("facts", {}))
