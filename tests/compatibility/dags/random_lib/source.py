"""Writes the lines of a random DAG, and makes the random choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from .rules import (
    EARLY,
    FAIL,
    FIRST_WORDS,
    NOTHING,
    RULES,
    SKIP,
    SKIP_OR_WAIT,
    WAITING,
    WORDS,
    Node,
    Scope,
    racy,
)

T = TypeVar("T")


class Source:
    """The source of one DAG while it is written.

    Parameters
    ----------
    seed
        Seed of all random choices.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.uses: Counter[str] = Counter()
        self.ends: dict[str, frozenset[str]] = {}
        self.lines: list[str] = []
        self.depth = 1
        self.names = 0
        self.tasks = 0
        self.processes = 0
        self.scope = Scope()

    def pick(self, weights: dict) -> object:
        """Choose by weight."""
        return self.random.choices(list(weights), list(weights.values()))[0]

    def word(self, *, first: bool = False) -> str:
        """Choose what a task does; a task with many downstream tasks rarely fails."""
        word = self.pick(FIRST_WORDS if first else WORDS)
        self.uses[f"word: {word}"] += 1
        return word

    def some_words(self) -> tuple[str, ...]:
        """Choose the words to map over."""
        return tuple(self.word() for _ in range(self.pick({0: 1, 1: 1, 2: 4, 3: 3})))

    def some_upstream(self, most: int = 3) -> list[Node]:
        """Choose an existing node, preferably a recent one."""
        nodes = self.scope.nodes
        if not nodes or self.random.random() < 0.12:
            return []
        latest = nodes[-5:]
        return self.random.sample(latest, min(len(latest), self.random.randint(1, most)))

    def rule(
        self, upstream: Sequence[Node], *, first: bool, providers: Sequence[Node] = (), skipper: bool = False
    ) -> str:
        """Choose a trigger rule whose result doesn't depend on which upstream ends first."""
        allowed = set(self.scope.first if first else RULES)
        providers = providers or (self.scope.providers if first else ())
        if not upstream:
            return "all_success"
        if skipper or providers or self.scope.staged or self.scope.words is not None:
            allowed.discard("always")
        if racy(upstream):
            allowed.discard("all_success")
        if providers and any(FAIL in node.may for node in providers):
            allowed -= {"all_skipped", "all_failed"}
        if providers and (len(upstream) > 1 or any(node.many for node in providers)):
            allowed &= WAITING
        gates = frozenset().union(*(node.gates for node in upstream))
        if gates:
            allowed.discard("always")
        if any(gates - node.gates for node in upstream):
            allowed &= SKIP_OR_WAIT
        usual = 3 if any(FAIL in node.may for node in upstream) else 8
        rule = self.pick({rule: usual if rule == "all_success" else 1 for rule in RULES if rule in allowed})
        self.uses[f"rule: {rule}"] += 1
        self.uses[f"rule {rule} in a mapped group"] += self.scope.words is not None
        return rule

    def something_to_see(self, upstream: Sequence[Node], rule: str) -> str:
        """Choose an upstream whose XCom to pass on, but none that may end after the task's start."""
        values = [node for node in upstream if node.value]
        if not values or rule in EARLY or self.random.random() < 0.5:
            return ""
        self.uses["XCom passed on"] += 1
        return self.random.choice(values).name

    def retries(self, words: Sequence[str]) -> dict[str, object]:
        """Choose the number of retries of a task that does this."""
        if "flaky" in words:
            self.uses["retries"] += 1
            return {"retries": 1}
        if "fail" in words and self.random.random() < 0.3:
            self.uses["retries exhausted"] += 1
            return {"retries": 1}
        return {}

    def name(self, kind: str) -> str:
        """Return a new name."""
        self.names += 1
        return f"{kind}{self.names}"

    def options(self, name: str, rule: str, **others: object) -> str:
        """Return a task's keyword arguments."""
        given = {"task_id": name, **({} if rule == "all_success" else {"trigger_rule": rule}), **others}
        return ", ".join(f"{key}={value!r}" for key, value in given.items())

    def say(self, line: str) -> None:
        """Write a line."""
        self.lines.append("    " * self.depth + line if line else "")

    def link(
        self,
        upstream: Sequence[Node],
        name: str,
        *,
        passed: str = "",
        implied: bool = False,
        group: str = "",
    ) -> None:
        """Write the edges to a task, except those of its arguments; ``group``: the group of these upstreams."""
        edges = upstream
        if not upstream and self.scope.linked and not implied:
            edges = self.scope.entry
        self.scope.followed |= {node.name for node in edges}
        rest = [node for node in edges if node.name != passed]
        if rest:
            self.say(f"{group or self.list_of_names(rest)} >> {name}")

    def count(self, processes: int) -> None:
        """Count a task and the processes in which it runs."""
        self.tasks += 1
        self.processes += processes

    def own(self, words: Sequence[str]) -> frozenset[str]:
        """Return the possible ends, other than success, of a task that does this."""
        return frozenset(
            {
                end
                for end, reasons in {SKIP: {"skip"}, FAIL: {"fail", "final"}}.items()
                if reasons & set(words)
            }
        )

    def items(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return the values that instances which do this pass to tasks mapped over them."""
        return tuple(word for word in words if word in ("good", "flaky"))

    def known(self, node: Node, above: Sequence[Node]) -> Node:
        """Return a task of this scope with the facts that follow from its place."""
        gates = node.gates.union(*(up.gates for up in above))
        may = node.may | self.scope.ends | (NOTHING if gates == node.gates else {SKIP})
        many = node.many or len(self.scope.words or ()) > 1
        return replace(node, gates=gates, may=may, many=many)

    def add(self, node: Node, above: Sequence[Node], *, shown: bool = True) -> Node:
        """Add a task as a possible upstream of later tasks."""
        node = self.known(node, above)
        self.ends[f"{self.scope.prefix}{node.name}"] = node.may
        if shown:
            self.scope.nodes.append(node)
        return node

    def amend(self, node: Node, may: frozenset[str]) -> None:
        """Add possible ends of a task."""
        place = next(index for index, other in enumerate(self.scope.nodes) if other.name == node.name)
        self.scope.nodes[place] = node = replace(node, may=node.may | may)
        self.ends[f"{self.scope.prefix}{node.name}"] = node.may

    def list_of(self, values: Sequence[object]) -> str:
        """Return values as source."""
        return repr(list(values))

    def list_of_names(self, nodes: Sequence[Node]) -> str:
        """Return variables as source."""
        return nodes[0].name if len(nodes) == 1 else f"[{', '.join(node.name for node in nodes)}]"
