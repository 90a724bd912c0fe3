"""Predictions about a random DAG: the possible final states of its tasks, and the trigger rules that they can have.

The result of a DAG must not depend on which of two tasks ends first, or native Airflow would give different results.
Airflow decides about a task each time that some of its upstreams have ended, so these constructs are excluded:

- ``all_success`` over one upstream that may skip and another that may fail: the one that ends first decides.
- A task that a branch or a short circuit may skip, and that another upstream may start or end earlier.
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
# If all upstreams succeed, these rules never start or end a task before all of its upstreams have ended.
WAITING = {
    "all_success",
    "all_done",
    "all_done_min_one_success",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
}
# Before all upstreams have ended, these rules can only skip the task.
SKIP_OR_WAIT = {"all_done", "all_done_min_one_success", "all_failed", "all_skipped", "none_skipped"}
WORDS = {"good": 9, "skip": 3, "fail": 2, "flaky": 2, "final": 1}
FIRST_WORDS = {"good": 12, "skip": 1, "fail": 1, "flaky": 2}
SKIP, FAIL = "skip", "fail"
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Node:
    """An object in the source that can have downstream tasks.

    Parameters
    ----------
    name
        Its variable.
    may
        Possible ends other than success: ``skip``, ``fail``. May contain an end that doesn't occur.
    many
        Whether it has several instances.
    items
        The values to map over; None if that isn't possible.
    gates
        Short circuits that skip it regardless of its trigger rule.
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
    """The DAG, a group, or the tasks between a setup and its teardown.

    Parameters
    ----------
    prefix
        Prefix of its task ids.
    entry
        The upstream nodes of its first tasks.
    linked
        Whether the source has to say so for each of these; a group says it once.
    first
        The trigger rules that its first tasks may have.
    words
        In a mapped group, the values that it is mapped over.
    providers
        In a mapped group, the tasks among ``entry`` that decide the number of instances.
    staged
        Whether a setup precedes all its tasks.
    ends
        Possible ends of every task in it, with any trigger rule.
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
        """The nodes without a downstream task so far."""
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
    """Return the possible ends of a task other than success."""
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
