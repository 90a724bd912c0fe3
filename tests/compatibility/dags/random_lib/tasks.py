"""Writes the tasks of a random DAG, mapped and not."""

from __future__ import annotations

from collections.abc import Sequence

from .rules import FAIL, NOTHING, SKIP, Node, may_end
from .source import Source


class Tasks(Source):
    """Writes one task at a time."""

    def one_task(
        self,
        upstream: Sequence[Node] | None = None,
        *,
        name: str = "",
        skipper: bool = False,
        group: str = "",
    ) -> Node:
        """Write a task that isn't mapped.

        Parameters
        ----------
        skipper
            Whether its only upstream decides if it runs.
        group
            The group that consists of its upstreams.
        """
        upstream = self.some_upstream() if upstream is None else upstream
        above = upstream or self.scope.entry
        rule = self.rule(above, first=not upstream, skipper=skipper)
        name = name or self.name("t")
        if self.random.random() < (0.35 if self.processes < 6 else 0.8):
            self.tasks += 1
            self.say(f"{name} = empty({self.options(name, rule)})")
            self.link(upstream, name, group=group)
            return self.add(Node(name, may_end(rule, above, NOTHING)), above)
        seen = "" if group else self.something_to_see(upstream, rule)
        words = self.scope.words
        if words and self.random.random() < 0.7:
            argument = "word"
        else:
            words = (self.word(first=not above),)
            argument = repr(words[0])
        retries = self.retries(words)
        self.say(
            f"{name} = act.override({self.options(name, rule, **retries)})({argument}{seen and f', seen={seen}'})"
        )
        self.link(upstream, name, passed=seen, group=group)
        own = self.own(words) | ({FAIL} if seen and any(node.may for node in above) else NOTHING)
        self.count(len(self.scope.words or "1"))
        return self.add(Node(name, may_end(rule, above, own), value=True), above)

    def mapped(self) -> Node:
        """Write a task that is mapped over literals or XComs, over one argument or more."""
        words = self.some_words()
        literal = self.random.random() < 0.5 and bool(words)
        how = self.pick({"expand": 3, "expand_kwargs": 1.5, "product": 1.2})
        values: list[object] = list(words)
        if how == "expand_kwargs":
            values = [
                {"word": word, "seen": index} if index % 2 else {"word": word}
                for index, word in enumerate(words)
            ]
        provider = None
        source = self.list_of(values)
        if not literal:
            provider = self.provider(source, words)
            source = provider.name
            self.uses[f"mapped over {'XComs' if words else 'an empty XCom'}"] += 1
        else:
            self.uses["mapped over literals"] += 1
        arguments = f"expand(word={source})"
        if how == "expand_kwargs":
            arguments = f"expand_kwargs({source})"
        elif how == "product":
            arguments = f"expand(word={source}, seen=[1, 2])"
            words = tuple(word for word in words for _ in range(2))
        self.uses[{"expand": "expand", "product": "cross product"}.get(how, how)] += 1
        plain = how == "expand"
        return self.instances(arguments, words, (provider,) if provider else (), plain=plain)

    def mapped_over_mapped(self) -> Node:
        """Write a task that is mapped over the results of another mapped task."""
        over = [node for node in self.scope.nodes if node.many and node.items is not None]
        if not over:
            return self.mapped()
        provider = self.random.choice(over)
        self.uses["mapped over mapped"] += 1
        return self.instances(f"expand(word={provider.name})", provider.items or (), (provider,))

    def instances(
        self, arguments: str, words: tuple[str, ...], providers: tuple[Node, ...], *, plain: bool = True
    ) -> Node:
        """Write a mapped task."""
        others = [node for node in self.some_upstream() if node not in providers]
        if any(node.may for node in providers) and any(node.may for node in others):
            others = []
        upstream = [*providers, *others]
        above = upstream or self.scope.entry
        rule = self.rule(above, first=not upstream, providers=providers)
        name = self.name("t")
        options = self.retries(words)
        if self.random.random() < 0.08:
            options["max_active_tis_per_dagrun"] = 1
            self.uses["max_active_tis_per_dagrun"] += 1
        self.say(f"{name} = act.override({self.options(name, rule, **options)}).{arguments}")
        self.link(others if providers else upstream, name, implied=bool(providers))
        own = (self.own(words) if words else frozenset({SKIP})).union(*(node.may for node in providers))
        self.count(len(words))
        self.uses["mapped, all well" if set(words) <= {"good", "flaky"} else "mapped, not all well"] += 1
        items = self.items(words) if plain else None
        return self.add(Node(name, may_end(rule, above, own), many=True, items=items, value=True), above)

    def provider(self, source: str, words: tuple[str, ...]) -> Node:
        """Write the task that returns the values that other tasks are mapped over, or fails to."""
        upstream = self.some_upstream(most=1)
        above = upstream or self.scope.entry
        rule = self.rule(above, first=not upstream)
        name = self.name("t")
        word = self.pick({"good": 8, "skip": 1, "fail": 1})
        call = f"give.override({self.options(name, rule)})({source})"
        if word != "good":
            call = f"act.override({self.options(name, rule)})({word!r})"
            self.uses["mapped over what isn't there"] += 1
        self.say(f"{name} = {call}")
        self.link(upstream, name)
        self.count(1)
        node = Node(name, may_end(rule, above, self.own((word,))), items=words, value=True)
        return self.add(node, above, shown=False)
