"""What can be known about a random DAG before it has run: how its tasks may end, and which rules they may have.

The result of a DAG must not depend on which of two tasks ends first, or native Airflow would disagree with itself.
Airflow decides about a task each time that some of its upstreams have ended, so what has to be kept out is:

- ``all_success`` over one upstream that may skip and another that may fail: the first one seen decides.
- A task that a branch or a short circuit may skip, and that another upstream may start or end before that.
- A task that is mapped over an XCom, and that another upstream may start or end before the XCom is there: it can't
  be expanded then, and fails. The same with a second upstream that asks for a different end.
- In a ``fail_fast`` DAG, whatever could run while another task fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

RULES = (
    "all_success",
    "all_failed",
    "all_done",
    "all_done_min_one_success",
    "all_skipped",
    "always",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "one_done",
    "one_failed",
    "one_success",
)
EARLY = {"always", "one_done", "one_failed", "one_success"}
# These never end or start a task, as long as all goes well, before all of its upstreams have ended.
WAITING = {
    "all_success",
    "all_done",
    "all_done_min_one_success",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
}
# All that these do before all upstreams have ended is to skip.
SKIP_OR_WAIT = {"all_done", "all_done_min_one_success", "all_failed", "all_skipped", "none_skipped"}
WORDS = {"good": 9, "skip": 3, "fail": 2, "flaky": 2, "final": 1}
FIRST_WORDS = {"good": 12, "skip": 1, "fail": 1, "flaky": 2}
SKIP, FAIL = "skip", "fail"
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Node:
    """Something in the source that tasks can come after.

    Parameters
    ----------
    name
        Its variable.
    may
        How it may end besides well: ``skip``, ``fail``. Rather too much than too little.
    many
        Whether it has several instances.
    items
        What can be mapped over; None if it can't be.
    gates
        Short circuits that skip it whatever its trigger rule.
    value
        Whether it has an XCom.
    """

    name: str
    may: frozenset[str] = NOTHING
    many: bool = False
    items: tuple[str, ...] | None = None
    gates: frozenset[str] = NOTHING
    value: bool = False


@dataclass
class Scope:
    """The DAG, a group, or what is between a setup and its teardown.

    Parameters
    ----------
    prefix
        Of its task ids.
    entry
        What its first tasks come after.
    linked
        Whether the source has to say so for each of these; a group says it once.
    first
        The rules that its first tasks may have.
    words
        In a mapped group, what it is mapped over.
    providers
        In a mapped group, the tasks among ``entry`` that say how many instances there are.
    staged
        Whether a setup stands before all.
    ends
        How any task in it may end, whatever its trigger rule.
    """

    prefix: str = ""
    entry: tuple[Node, ...] = ()
    linked: bool = False
    first: frozenset[str] = frozenset(RULES)
    words: tuple[str, ...] | None = None
    providers: tuple[Node, ...] = ()
    staged: bool = False
    ends: frozenset[str] = NOTHING
    nodes: list[Node] = field(default_factory=list)
    followed: set[str] = field(default_factory=set)

    @property
    def leaves(self) -> list[Node]:
        """What nothing comes after yet."""
        return [node for node in self.nodes if node.name not in self.followed]


def racy(upstream: Sequence[Node]) -> bool:
    """Return whether one of these may skip and another one fail."""
    return any(
        one is not other or one.many
        for one in upstream
        if SKIP in one.may
        for other in upstream
        if FAIL in other.may
    )


def may_end(rule: str, upstream: Sequence[Node], own: frozenset[str]) -> frozenset[str]:
    """Return how a task may end besides well."""
    if not upstream:
        return own
    skips = [SKIP in node.may for node in upstream]
    fails = [FAIL in node.may for node in upstream]
    none_good = all(node.may for node in upstream)
    skipped = {
        "all_success": any(skips),
        "all_failed": True,
        "all_done_min_one_success": any(skips),
        "all_skipped": True,
        "none_failed_min_one_success": all(skips),
        "none_skipped": any(skips),
        "one_done": none_good,
        "one_failed": True,
        "one_success": all(skips),
    }
    failed = {
        "all_success": any(fails),
        "all_done_min_one_success": none_good,
        "none_failed": any(fails),
        "none_failed_min_one_success": any(fails),
        "one_success": none_good,
    }
    may = {SKIP: skipped.get(rule, False), FAIL: failed.get(rule, False)}
    return own | {end for end, possible in may.items() if possible}
