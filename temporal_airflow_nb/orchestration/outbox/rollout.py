"""Which DAGs' runs Temporal executes in an Airflow that has a scheduler of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.config.environment import ORCHESTRATOR
from temporal_airflow_nb.errors import InvalidInputError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

OFF = ("", "DefaultOrchestrator")
_TAG = "tag:"


@dataclass(frozen=True)
class Rollout:
    """
    Patterns of DAG ids, as of a shell, and tags: those that are in, and those that are out after all.

    Where only what is out is named, everything else is in.

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
            A pattern can't be read.
        """
        included: list[str] = []
        excluded: list[str] = []
        for item in text.split(","):
            pattern = item.strip()
            (excluded if pattern.startswith("!") else included).append(pattern.removeprefix("!").strip())
        for pattern in (*included, *excluded):
            if problem := _problem(pattern):
                raise InvalidInputError(
                    f"[temporal_airflow] dags = {text!r}: {problem}",
                    hint="Give patterns of DAG ids with commas between them, such as: etl_*, tag:temporal, !etl_old",
                    value=text,
                )
        return cls(tuple(included) or ("*",), tuple(excluded))

    @property
    def uses_tags(self) -> bool:
        """Whether a DAG's tags matter."""
        return any(pattern.startswith(_TAG) for pattern in (*self.included, *self.excluded))

    def manages(self, dag_id: str, tags: Collection[str]) -> bool:
        """Return whether Temporal executes a DAG's runs."""

        def is_in(patterns: Iterable[str]) -> bool:
            return any(
                pattern.removeprefix(_TAG) in tags
                if pattern.startswith(_TAG)
                else fnmatchcase(dag_id, pattern)
                for pattern in patterns
            )

        return is_in(self.included) and not is_in(self.excluded)

    def managed(self, dag_ids: Collection[str], session: Session) -> set[str]:
        """Return those of ``dag_ids`` whose runs Temporal executes."""
        tags: dict[str, set[str]] = {}
        if dag_ids and self.uses_tags:
            from airflow.models.dag import DagTag
            from sqlalchemy import select

            found = select(DagTag.dag_id, DagTag.name).where(DagTag.dag_id.in_(sorted(dag_ids)))
            for dag_id, tag in session.execute(found):
                tags.setdefault(dag_id, set()).add(tag)
        return {dag_id for dag_id in dag_ids if self.manages(dag_id, tags.get(dag_id, ()))}


def _problem(pattern: str) -> str | None:
    if not pattern:
        return "there is an empty pattern in it"
    if pattern.startswith("!"):
        return f"!{pattern} negates twice"
    if pattern.startswith(_TAG):
        return None if pattern.removeprefix(_TAG).strip() else f"{pattern} names no tag"
    if pattern.count("[") != pattern.count("]"):
        return f"{pattern} has a bracket without its other half"
    if any(character.isspace() for character in pattern):
        return f"{pattern!r} has a space in it"
    return None


_alone = False


def take_everything() -> None:
    """Have every run be Temporal's, whatever the configuration says: no scheduler of Airflow is there."""
    global _alone
    _alone = True


def is_alone() -> bool:
    """Return whether that is so."""
    return _alone


def in_force() -> Rollout | None:
    """Return which DAGs' runs Temporal executes in this process's Airflow, or None where it executes none by itself."""
    return Rollout() if _alone else configured()


def is_chosen() -> bool:
    """Return whether ``[core] orchestrator`` names this package."""
    return _chosen() == ORCHESTRATOR


def _chosen() -> str:
    from airflow.configuration import conf

    return (conf.get("core", "orchestrator", fallback=None) or "").strip()


def configured() -> Rollout | None:
    """
    Return which DAGs Airflow's configuration turns over to Temporal, or None where it is off.

    Raises
    ------
    InvalidInputError
        ``[core] orchestrator`` names something else, or ``[temporal_airflow] dags`` can't be read.
    """
    from airflow.configuration import conf

    chosen = _chosen()
    if chosen in OFF:
        return None
    if chosen != ORCHESTRATOR:
        raise InvalidInputError(
            f"[core] orchestrator = {chosen!r} is not known.",
            hint=f"Set it to {ORCHESTRATOR}, or to DefaultOrchestrator to switch Temporal off.",
            value=chosen,
        )
    return Rollout.parse(conf.get("temporal_airflow", "dags", fallback=None) or "*")


def dag_is_inactive() -> Any:
    """
    Return the condition on ``DagModel`` that no task of the DAG starts now, as in Airflow's scheduler.

    It is paused, or its file is gone. The latter is for a DAG processor to say, which an Airflow without a scheduler
    hasn't got either.
    """
    from airflow.models.dag import DagModel
    from sqlalchemy import or_

    return DagModel.is_paused if is_alone() else or_(DagModel.is_paused, DagModel.is_stale)
