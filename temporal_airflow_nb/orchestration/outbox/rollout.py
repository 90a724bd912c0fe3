"""The DAGs whose runs Temporal executes, as ``[core] orchestrator`` and ``[temporal_airflow] dags`` name them.

Airflow's processes read the settings when they take a run over, and workers when they start queued runs. A worker
without an Airflow scheduler executes every DAG instead. A run that was assigned to Temporal before a change of the
settings stays with Temporal: see ``managed_runs.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.config.environment import ORCHESTRATOR
from temporal_airflow_nb.errors import InvalidInputError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_OFF = ("", "DefaultOrchestrator")
_TAG = "tag:"


@dataclass(frozen=True)
class Rollout:
    """
    Patterns of DAG ids and tags: the included ones, and exceptions from them.

    A pattern may contain ``*``, ``?`` and ``[…]``, as in a shell. If only exceptions are given, every other DAG is
    included.

    Examples
    --------
    >>> rollout = Rollout.parse("etl_*, tag:temporal, !etl_legacy")
    >>> rollout.manages("etl_daily", ()), rollout.manages("etl_legacy", ()), rollout.manages("x", ["temporal"])
    (True, False, True)
    """

    included: tuple[str, ...] = ("*",)
    excluded: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ", ".join([*self.included, *(f"!{pattern}" for pattern in self.excluded)])

    @classmethod
    def parse(cls, text: str) -> Rollout:
        """
        Read ``[temporal_airflow] dags``.

        Raises
        ------
        InvalidInputError
            A pattern is malformed.
        """
        included: list[str] = []
        excluded: list[str] = []
        for item in text.split(","):
            pattern = item.strip()
            (excluded if pattern.startswith("!") else included).append(pattern.removeprefix("!").strip())
        for pattern in (*included, *excluded):
            if problem := _find_problem(pattern):
                raise InvalidInputError(
                    f"The setting `[temporal_airflow] dags = {text}` is malformed: {problem}.",
                    hint="Separate patterns of DAG ids with commas, for example `etl_*, tag:temporal, !etl_old`.",
                    value=text,
                )
        return cls(tuple(included) or ("*",), tuple(excluded))

    @property
    def uses_tags(self) -> bool:
        """True if a DAG's tags matter."""
        return any(pattern.startswith(_TAG) for pattern in (*self.included, *self.excluded))

    def manages(self, dag_id: str, tags: Collection[str]) -> bool:
        """Return whether Temporal executes a DAG's runs."""

        def matches(patterns: Iterable[str]) -> bool:
            return any(
                pattern.removeprefix(_TAG) in tags
                if pattern.startswith(_TAG)
                else fnmatchcase(dag_id, pattern)
                for pattern in patterns
            )

        return matches(self.included) and not matches(self.excluded)

    def managed(self, dag_ids: Collection[str], session: Session) -> set[str]:
        """Return the DAGs among ``dag_ids`` whose runs Temporal executes."""
        tags: dict[str, set[str]] = {}
        if dag_ids and self.uses_tags:
            from airflow.models.dag import DagTag
            from sqlalchemy import select

            found = select(DagTag.dag_id, DagTag.name).where(DagTag.dag_id.in_(sorted(dag_ids)))
            for dag_id, tag in session.execute(found):
                tags.setdefault(dag_id, set()).add(tag)
        return {dag_id for dag_id in dag_ids if self.manages(dag_id, tags.get(dag_id, ()))}


def _find_problem(pattern: str) -> str | None:
    if not pattern:
        return "it contains an empty pattern"
    if pattern.startswith("!"):
        return f"`!{pattern}` negates twice"
    if pattern.startswith(_TAG):
        return None if pattern.removeprefix(_TAG).strip() else f"`{pattern}` names no tag"
    if pattern.count("[") != pattern.count("]"):
        return f"`{pattern}` has an unbalanced bracket"
    if any(character.isspace() for character in pattern):
        return f"`{pattern}` contains a space"
    return None


# For the whole process: set when an `AirflowWorker` is created, and never reset.
_has_airflow_scheduler = True


def manage_every_dag() -> None:
    """Let Temporal execute every run, whatever the configuration: no Airflow scheduler uses this database."""
    global _has_airflow_scheduler
    _has_airflow_scheduler = False


def runs_without_airflow_scheduler() -> bool:
    """Return whether :func:`manage_every_dag` was called in this process."""
    return not _has_airflow_scheduler


def active_rollout() -> Rollout | None:
    """Return the DAGs whose runs Temporal executes; None if Temporal is off.

    In a worker without an Airflow scheduler these are all DAGs, whatever is configured.
    """
    return configured_rollout() if _has_airflow_scheduler else Rollout()


def is_enabled() -> bool:
    """Return whether ``[core] orchestrator`` names this package."""
    return _configured_orchestrator() == ORCHESTRATOR


def _configured_orchestrator() -> str:
    from airflow.configuration import conf

    return (conf.get("core", "orchestrator", fallback=None) or "").strip()


def configured_rollout() -> Rollout | None:
    """
    Return the DAGs that Airflow's configuration leaves to Temporal; None if Temporal is off.

    Raises
    ------
    InvalidInputError
        ``[core] orchestrator`` names an unknown class, or ``[temporal_airflow] dags`` is malformed.
    """
    from airflow.configuration import conf

    orchestrator = _configured_orchestrator()
    if orchestrator in _OFF:
        return None
    if orchestrator != ORCHESTRATOR:
        raise InvalidInputError(
            f"The setting `[core] orchestrator = {orchestrator}` is not known.",
            hint=f"Set it to `{ORCHESTRATOR}`, or to `DefaultOrchestrator` to switch Temporal off.",
            value=orchestrator,
        )
    return Rollout.parse(conf.get("temporal_airflow", "dags", fallback=None) or "*")


def dag_is_inactive() -> Any:
    """
    Return the condition on ``DagModel`` under which Airflow's scheduler starts no task: paused, or stale.

    A DAG processor marks a DAG whose file is gone as stale. Without an Airflow scheduler no DAG processor runs either,
    so that only ``is_paused`` counts.
    """
    from airflow.models.dag import DagModel
    from sqlalchemy import or_

    return (
        DagModel.is_paused if runs_without_airflow_scheduler() else or_(DagModel.is_paused, DagModel.is_stale)
    )
