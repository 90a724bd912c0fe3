"""Every error this package raises on purpose.

The command line turns one into a message and its ``exit_code``; a notebook shows the message alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar


class TemporalAirflowError(Exception):
    """Base of every error of this package.

    Parameters
    ----------
    message
        What is wrong, with the thing and the place named.
    hint
        The next step, as a sentence. Shown on a line of its own.
    **facts
        What the message was made of; also readable as ``error.facts``.

    Examples
    --------
    >>> error = DagNotFoundError("no DAG 'etl' in dags/x.py", hint="It defines: load.", dag_id="etl")
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
        return f"{self.message}\n  {self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """Show the message alone in IPython: the cause is the user's input, not our code."""
        return [f"{type(self).__name__}: {self}"]

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON-able data, for :func:`from_dict` on the other side of a socket."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "facts": self.facts}


class InvalidInputError(TemporalAirflowError):
    """What the user gave can't be used: a wrong path, option, conf or setting."""

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
        """Return the error that says what was found, in a file or, without a ``path``, in a cell."""

        def said(finding: Any) -> str:
            if finding.line is None:
                return finding.message
            place = f"cell line {finding.line}" if path is None else f"{path}, line {finding.line}"
            return f"{place}: {finding.message}"

        facts: dict[str, Any] = {"findings": [finding.to_dict() for finding in findings], "path": path}
        if len(findings) == 1:
            return cls(said(findings[0]), hint=findings[0].hint, **facts)
        lines = [f"{said(finding)}\n    {finding.hint}".rstrip() for finding in findings]
        return cls(f"{len(findings)} things are wrong:\n  " + "\n  ".join(lines), **facts)


class DagNotFoundError(InvalidInputError):
    """The DAG asked for isn't there, or a file holds several and none was chosen. Facts: ``dag_id``, ``dag_ids``."""

    code = "dag_not_found"


class InvalidConfError(InvalidInputError):
    """``conf`` isn't a JSON object, or the DAG's params refuse it."""

    code = "invalid_conf"

    @classmethod
    def of_params(cls, dag_id: str, error: Exception) -> InvalidConfError:
        """Return the error that says why a DAG's params refuse ``conf``, in Airflow's words."""
        reason = next(iter(str(error).splitlines()), "")
        return cls(
            f"conf doesn't fit the params of DAG {dag_id!r}: {reason}",
            hint="Correct it with --params or --conf.",
            dag_id=dag_id,
        )


class RunNotFoundError(InvalidInputError):
    """No such run, or no such task in it. ``facts``: ``dag_id``, ``run_id``, ``task_id``."""

    code = "run_not_found"


class UnavailableHereError(InvalidInputError):
    """What was asked for needs a service that this connection doesn't reach. ``facts``: ``op``."""

    code = "unavailable_here"


class UnsupportedVersionError(InvalidInputError):
    """The installed Airflow is of another minor version than the one this package knows."""

    code = "unsupported_version"


class ServiceUnavailableError(TemporalAirflowError):
    """A service can't be reached or doesn't start. ``facts``: ``service``, ``address``."""

    exit_code = 3
    code = "service_unavailable"


class RunTimeoutError(TemporalAirflowError, TimeoutError):
    """A run hadn't ended when the time given to :meth:`Run.wait` was over. The run goes on."""

    code = "run_timeout"


@contextmanager
def interruptible(meaning: str) -> Iterator[None]:
    """Have the user's interrupt of the block say what it means for what goes on; IPython shows that alone."""
    try:
        yield
    except KeyboardInterrupt as error:
        if hasattr(error, "_render_traceback_"):
            raise
        told = KeyboardInterrupt(meaning)
        told._render_traceback_ = lambda: [f"KeyboardInterrupt: {meaning}"]  # type: ignore[attr-defined]
        raise told from None


def _every_class(base: type[TemporalAirflowError]) -> list[type[TemporalAirflowError]]:
    return [base, *(c for sub in base.__subclasses__() for c in _every_class(sub))]


def from_dict(data: dict[str, Any]) -> TemporalAirflowError:
    """Rebuild the error that :meth:`TemporalAirflowError.to_dict` described."""
    by_code = {c.code: c for c in _every_class(TemporalAirflowError)}
    cls = by_code.get(data.get("code", ""), TemporalAirflowError)
    return cls(data.get("message", ""), hint=data.get("hint", ""), **data.get("facts", {}))
