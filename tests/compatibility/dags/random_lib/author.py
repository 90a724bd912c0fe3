"""Random DAGs: a seed gives the source of a DAG file, in the words of :mod:`.acts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .rules import NOTHING, RULES, SKIP, Node, Scope, may_end, racy
from .tasks import Tasks


@dataclass(frozen=True)
class RandomDag:
    """
    A DAG.

    Parameters
    ----------
    seed, dag_id
        The seed, and the DAG id that belongs to it.
    source
        Text of the DAG file.
    uses
        Number of uses of each construct.
    ends
        Predicted final states of its tasks other than success: ``skip``, ``fail``.
    """

    seed: int
    dag_id: str
    source: str
    uses: Counter[str]
    ends: dict[str, frozenset[str]]


class Author(Tasks):
    """Writes the DAG of one seed."""

    def write(self) -> RandomDag:
        """Write it all."""
        options = ""
        if self.random.random() < 0.1:
            options = ", fail_fast=True"
            self.uses["fail_fast"] += 1
            self.fail_fast()
        else:
            self.fill(self.random.randint(4, 11))
        dag_id = dag_id_of(self.seed)
        source = "\n".join([f'with DAG("{dag_id}", schedule=None{options}):', *self.lines, ""])
        return RandomDag(self.seed, dag_id, source, +self.uses, self.ends)

    def fill(self, size: int) -> None:
        """Write about ``size`` tasks into the scope."""
        end = self.tasks + size
        while self.tasks < end:
            parts: dict[Callable[[], object], float] = {self.one_task: 6}
            if self.processes < 6 and self.tasks < 10:
                parts |= {self.plain_group: 0.8, self.branch: 1.4}
                if not self.scope.staged:
                    parts[self.setup_and_teardown] = 1.2
                if self.scope.words is None:
                    parts |= {
                        self.short_circuit: 1.4,
                        self.mapped: 3,
                        self.mapped_over_mapped: 3,
                        self.mapped_group: 1.5,
                    }
            self.pick(parts)()

    def branch(self) -> None:
        """Write a branch and the tasks that it chooses from."""
        upstream = self.some_upstream(most=2)
        above = upstream or self.scope.entry
        rule = self.rule(above, first=not upstream)
        name = self.name("t")
        kinds = [
            "t" if self.random.random() < 0.75 or self.scope.words else "g"
            for _ in range(self.random.randint(2, 3))
        ]
        names = [self.name(kind) for kind in kinds]
        ids = [f"{self.scope.prefix}{child}" for child in names]
        if self.scope.words:
            ways = {word: [self.random.choice(ids)] for word in sorted(set(self.scope.words))}
            self.say(f"{name} = choose_by.override({self.options(name, rule)})(word, {ways})")
            followed = []
            self.uses["branch in a mapped group"] += 1
        else:
            followed = [task_id for task_id in ids if self.random.random() < 0.5]
            self.say(f"{name} = choose.override({self.options(name, rule)})({followed})")
            self.uses["branch"] += 1
        self.link(upstream, name)
        self.count(len(self.scope.words or "1"))
        may = may_end(rule, above, NOTHING)
        brancher = self.add(Node(name, may, value=True), above, shown=False)
        for kind, child, task_id in zip(kinds, names, ids, strict=True):
            as_seen = brancher if task_id in followed else replace(brancher, may=brancher.may | {SKIP})
            if kind == "t":
                node = self.one_task([as_seen], name=child, skipper=True)
                self.amend(node, as_seen.may & {SKIP})
            else:
                self.uses["branch into a group"] += 1
                self.plain_group([as_seen], name=child, skipper=True)

    def short_circuit(self) -> None:
        """Write a short circuit of either kind, which continues or skips."""
        upstream = self.some_upstream(most=2)
        above = upstream or self.scope.entry
        rule = self.rule(above, first=not upstream)
        name = self.name("t")
        answer = self.random.random() < 0.35
        ignoring = self.random.random() < 0.6
        options = {} if ignoring else {"ignore_downstream_trigger_rules": False}
        self.say(f"{name} = proceed.override({self.options(name, rule, **options)})({answer})")
        self.link(upstream, name)
        self.count(1)
        self.uses[f"short circuit{'' if ignoring else ' that minds trigger rules'}: {answer}"] += 1
        may = may_end(rule, above, NOTHING)
        node = Node(name, may if answer else may | {SKIP}, value=True)
        if ignoring:
            self.add(node if answer else replace(node, gates=frozenset({name})), above)
            return
        node = self.add(node, above, shown=False)
        for _ in range(self.random.randint(1, 2)):
            child = self.one_task([node], skipper=True)
            self.amend(child, node.may & {SKIP})

    def plain_group(
        self, entry: Sequence[Node] | None = None, *, name: str = "", skipper: bool = False
    ) -> None:
        """Write a group."""
        outer = self.scope
        upstream = self.some_upstream() if entry is None else list(entry)
        name = name or self.name("g")
        self.uses["group in a group" if "." in outer.prefix else "group"] += 1
        above = tuple(upstream) or outer.entry
        first = frozenset(RULES) if upstream else outer.first
        self.say(f'with TaskGroup("{name}") as {name}:')
        self.scope = Scope(
            f"{outer.prefix}{name}.",
            above,
            first=first - {"always"} if skipper else first,
            words=outer.words,
            providers=() if upstream else outer.providers,
            staged=outer.staged,
            ends=outer.ends | (above[0].may & {SKIP} if skipper else NOTHING),
        )
        self.depth += 1
        self.fill(self.random.randint(1, 3))
        self.depth -= 1
        inner, self.scope = self.scope, outer
        if upstream or outer.linked:
            self.say(f"{self.list_of_names(above)} >> {name}")
        outer.followed |= {node.name for node in upstream} | inner.followed
        outer.nodes += inner.nodes
        if not skipper and self.random.random() < 0.4:
            self.uses["after a group"] += 1
            self.one_task(inner.nodes, group=name)

    def mapped_group(self) -> None:
        """Write a mapped group, over literals or an XCom."""
        outer = self.scope
        words = self.some_words()
        literal = self.random.random() < 0.5 and bool(words)
        name = self.name("g")
        upstream: list[Node] = []
        providers: tuple[Node, ...] = ()
        if literal:
            source = self.list_of(words)
            upstream = self.some_upstream(most=2)
            above = tuple(upstream) or outer.entry
            first = (frozenset(RULES) if upstream else outer.first) - {"always"}
            self.uses["mapped group over literals"] += 1
        else:
            providers = (self.provider(self.list_of(words), words),)
            source = providers[0].name
            above = providers
            first = frozenset(RULES) - {"always"}
            self.uses["mapped group over XComs"] += 1
        self.uses["mapped group in a group"] += bool(outer.prefix)
        self.say(f'@task_group(group_id="{name}")')
        self.say(f"def {name}_of(word):")
        self.scope = Scope(
            f"{outer.prefix}{name}.",
            above,
            first=first,
            words=words or ("good",),
            providers=providers,
            staged=outer.staged,
            ends=outer.ends | (NOTHING if words else {SKIP}).union(*(node.may for node in providers)),
        )
        self.depth += 1
        self.fill(self.random.randint(2, 4))
        inner, self.scope = self.scope, outer
        returned = None
        values = [node for node in inner.nodes if node.value]
        if values and not upstream and not outer.linked and self.random.random() < 0.5:
            returned = self.random.choice(values)
            self.say(f"return {returned.name}")
            self.uses["mapped group that returns"] += 1
        self.depth -= 1
        self.say("")
        if literal and self.random.random() < 0.3:
            self.uses["mapped group with expand_kwargs"] += 1
            self.say(f"{name} = {name}_of.expand_kwargs({[{'word': word} for word in words]})")
        else:
            self.say(f"{name} = {name}_of.expand(word={source})")
        if not providers and (upstream or outer.linked):
            self.say(f"{self.list_of_names(above)} >> {name}")
        outer.followed |= {node.name for node in (*upstream, *providers)}
        if returned is None:
            may = frozenset().union(*(node.may for node in inner.nodes))
            gates = frozenset().union(*(node.gates for node in (*inner.nodes, *above)))
            node = Node(name, may, many=True, gates=gates)
        else:
            node = replace(returned, name=name, many=True)
        outer.nodes.append(node)

    def setup_and_teardown(self) -> None:
        """Write a setup, the tasks that need it, and its teardown."""
        outer = self.scope
        upstream = self.some_upstream()
        above = upstream or outer.entry
        words = [self.pick({"good": 4, "fail": 2, "skip": 1, "flaky": 1}), "good"][: self.pick({1: 4, 2: 1})]
        rule = self.rule(above, first=not upstream)
        # Tasks after a setup must have the rule all_success.
        if racy([self.known(Node("", may_end(rule, above, self.own(words))), above) for _ in words]):
            words, rule = ["good"], "all_done"
            if racy([self.known(Node(""), above)]):
                self.one_task(upstream)
                return
        setups = [self.staged(word, upstream, rule, ".as_setup()") for word in words]
        self.uses["setup and teardown"] += 1
        self.uses[f"setup: {words[0]}"] += 1
        self.scope = Scope(
            outer.prefix,
            tuple(setups),
            linked=True,
            first=frozenset({"all_success"}),
            words=outer.words,
            staged=True,
            ends=outer.ends.union(*(node.may for node in setups)),
        )
        self.fill(self.random.randint(1, 3))
        inner, self.scope = self.scope, outer
        end = self.pick({"good": 6, "fail": 2, "skip": 1})
        self.uses[f"teardown: {end}"] += 1
        options = f"setups={self.list_of_names(setups)}"
        if self.random.random() < 0.4:
            options += ", on_failure_fail_dagrun=True"
            self.uses["on_failure_fail_dagrun"] += 1
        before = frozenset().union(*(node.may for node in setups))
        teardown = self.staged(end, inner.leaves, "all_success", f".as_teardown({options})", may=before)
        outer.nodes.append(teardown)
        if not before:
            outer.nodes += inner.nodes
            outer.followed |= inner.followed

    def staged(
        self, word: str, upstream: Sequence[Node], rule: str, role: str, may: frozenset[str] | None = None
    ) -> Node:
        """Write a setup or a teardown; ``may``: its possible ends because of other tasks, unless its rule decides."""
        name = self.name("t")
        above = upstream or self.scope.entry
        if word == "good" and self.random.random() < 0.4:
            self.tasks += 1
            call = f"empty({self.options(name, rule)})"
        else:
            retries = self.retries((word,))
            call = f"act.override({self.options(name, rule, **retries)})({word!r})"
            self.count(len(self.scope.words or "1"))
        self.say(f"{name} = {call}{role}")
        self.link(upstream, name)
        may = may_end(rule, above, self.own((word,))) if may is None else may | self.own((word,))
        return self.add(Node(name, may), above, shown=False)

    def fail_fast(self) -> None:
        """Write a whole DAG in which nothing else runs while a task fails."""
        before = self.level([])
        for _ in range(self.random.randint(0, 2)):
            before = self.level(before)
        staged = self.random.random() < 0.5
        setup = self.staged("good", before, "all_success", ".as_setup()") if staged else None
        failing = self.name("t")
        words = self.pick({("fail",): 4, ("final",): 2, ("good", "fail", "good"): 2, ("skip",): 1})
        retries = {"retries": 1} if "fail" in words and self.random.random() < 0.4 else {}
        arguments = f".expand(word={self.list_of(words)})" if len(words) > 1 else f"({words[0]!r})"
        self.say(f"{failing} = act.override({self.options(failing, 'all_success', **retries)}){arguments}")
        self.link([setup] if setup else before, failing)
        self.count(len(words))
        after = self.level([Node(failing)])
        if self.random.random() < 0.5:
            after = self.level(after)
        if setup:
            self.uses["fail_fast with a teardown"] += 1
            end = self.pick({"good": 2, "fail": 1})
            after = [
                self.staged(end, after, "all_success", f".as_teardown(setups={setup.name})", may=NOTHING)
            ]
            self.level(after)

    def level(self, before: Sequence[Node]) -> list[Node]:
        """Write a few tasks side by side."""
        level = []
        for _ in range(self.random.randint(1, 3)):
            name = self.name("t")
            word = self.pick({"": 3, "good": 3, "flaky": 1})
            if word:
                options = self.options(name, "all_success", **self.retries((word,)))
                self.say(f"{name} = act.override({options})({word!r})")
                self.count(1)
            else:
                self.say(f"{name} = empty({self.options(name, 'all_success')})")
                self.tasks += 1
            self.link(before, name)
            level.append(Node(name))
        return level


def random_dag(seed: int) -> RandomDag:
    """Return the DAG of a seed; always the same one."""
    return Author(seed).write()


def dag_id_of(seed: int) -> str:
    """Return the id of a seed's DAG."""
    return f"random_{seed:04}"
