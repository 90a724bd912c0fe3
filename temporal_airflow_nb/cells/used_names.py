"""Find the names that Python source uses without defining them.

The finder visits the nodes in the order in which Python executes them, with a stack of scopes as in Python. Bodies of
functions come after the module, because a function may use a name that is bound after its definition.

The code depends on syntax trees only and keeps no state between calls. The kernel calls it for cells and definitions.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from temporal_airflow_nb.cells.bound_names import FUNCTIONS, find_bindings, find_bound_names

_NODES_WITH_NAME: tuple[Any, ...] = (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)


@dataclass(frozen=True)
class Use:
    """A name that is used without being bound before.

    Attributes
    ----------
    name : str
        The name.
    line : int
        The line of the use.
    functions : tuple of str
        The functions around it, the outermost first; empty at the top level.
    task : str or None
        The innermost of these functions with ``@task``.
    deferred : bool
        Whether the name is looked up only when a function is called.
    annotation : bool
        Whether the use is part of a type annotation.
    guarded : bool
        Whether the code catches a ``NameError`` there.
    """

    name: str
    line: int
    functions: tuple[str, ...] = ()
    task: str | None = None
    deferred: bool = False
    annotation: bool = False
    guarded: bool = False


def find_uses(tree: ast.Module) -> list[Use]:
    """Return the uses of names that a module hasn't bound before, builtins included.

    Examples
    --------
    >>> [(u.name, u.line, u.task) for u in find_uses(ast.parse("@task\\ndef load(n=TEN):\\n    return n * rate"))]
    [('task', 1, None), ('TEN', 2, None), ('rate', 3, 'load')]
    """
    finder = _Finder()
    finder.visit_block(tree.body)
    finder.visit_deferred_bodies()
    return sorted(finder.found, key=lambda use: use.line)


@dataclass
class _Scope:
    kind: Literal["module", "class", "function"]
    bound: set[str] = field(default_factory=set)
    module_names: set[str] = field(default_factory=set)


class _Finder(ast.NodeVisitor):
    """Visits source in the order of execution; bodies of functions come after the module."""

    def __init__(self) -> None:
        self.found: list[Use] = []
        self.module = _Scope("module")
        self.scopes = [self.module]
        self.functions: tuple[str, ...] = ()
        self.tasks: tuple[str, ...] = ()
        self.deferred = False
        self.annotation = False
        self.guarded = False
        self.deferred_bodies: list[Callable[[], None]] = []

    def visit_deferred_bodies(self) -> None:
        while self.deferred_bodies:
            self.deferred_bodies.pop(0)()

    def visit_block(self, body: Sequence[ast.stmt]) -> None:
        for node in body:
            self.visit(node)

    def bind(self, name: str) -> None:
        # `global` in a function makes its assignments bind names of the module.
        scope = self.scopes[-1]
        (self.module if name in scope.module_names else scope).bound.add(name)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.bind(node.id)
        elif not self._is_bound(node.id):
            self._record_use(node.id, node.lineno)

    def _record_use(self, name: str, line: int) -> None:
        task = self.tasks[-1] if self.tasks else None
        self.found.append(Use(name, line, self.functions, task, self.deferred, self.annotation, self.guarded))

    def _is_bound(self, name: str) -> bool:
        for scope in reversed(self.scopes):
            # As in Python, functions don't see the names of the class around them.
            if scope.kind == "class" and scope is not self.scopes[-1]:
                continue
            if name in scope.module_names:
                return name in self.module.bound
            if name in scope.bound:
                return True
        return False

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and not self._is_bound(node.target.id):
            self._record_use(node.target.id, node.lineno)
        self.visit(node.value)
        self.visit(node.target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._annotation(node.annotation)
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.visit(node.target)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self.visit(node.target)
        self.visit_block([*node.body, *node.orelse])

    visit_AsyncFor = visit_For  # noqa: N815

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for binding in find_bindings([node]):
            self.bind(binding.name)

    visit_ImportFrom = visit_Import  # noqa: N815

    def visit_Global(self, node: ast.Global) -> None:
        self.scopes[-1].module_names.update(node.names)

    def generic_visit(self, node: ast.AST) -> None:
        super().generic_visit(node)
        name = getattr(node, "name", None) if isinstance(node, _NODES_WITH_NAME) else None
        if name:
            self.bind(name)
        if isinstance(node, ast.MatchMapping) and node.rest:
            self.bind(node.rest)

    def visit_Try(self, node: ast.Try) -> None:
        outer = self.guarded
        caught = (n for handler in node.handlers if handler.type for n in ast.walk(handler.type))
        self.guarded = outer or any(isinstance(n, ast.Name) and n.id == "NameError" for n in caught)
        self.visit_block(node.body)
        self.guarded = outer
        for handler in node.handlers:
            self.visit(handler)
        self.visit_block([*node.orelse, *node.finalbody])

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self.visit(node.type)
        if node.name:
            self.bind(node.name)
        self.visit_block(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        with self._type_params(node):
            for part in [*node.bases, *node.keywords]:
                self.visit(part)
            self.scopes.append(_Scope("class", {"__module__", "__qualname__"}))
            outer, self.functions = self.functions, (*self.functions, node.name)
            self.visit_block(node.body)
            self.functions = outer
            self.scopes.pop()
        self.bind(node.name)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        is_task = any("task" in _dotted_names(decorator) for decorator in node.decorator_list)
        self.bind(node.name)
        with self._type_params(node):
            self._signature(node)
            self._function(node, node.name, node.body, is_task)

    def visit_TypeAlias(self, node: Any) -> None:
        self.visit(node.name)
        with self._type_params(node):
            self._annotation(node.value)

    @contextmanager
    def _type_params(self, node: Any) -> Iterator[None]:
        parameters = getattr(node, "type_params", ())
        if not parameters:
            yield
            return
        self.scopes.append(_Scope("function", {parameter.name for parameter in parameters}))
        for parameter in parameters:
            if getattr(parameter, "bound", None) is not None:
                self._annotation(parameter.bound)
        yield
        self.scopes.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._signature(node)
        self._function(node, None, [ast.Expr(node.body, lineno=node.lineno, col_offset=0)], False)

    def _signature(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        arguments = node.args
        for default in [*arguments.defaults, *arguments.kw_defaults]:
            if default is not None:
                self.visit(default)
        for argument in _arguments(arguments):
            if argument.annotation is not None:
                self._annotation(argument.annotation)
        if not isinstance(node, ast.Lambda) and node.returns is not None:
            self._annotation(node.returns)

    def _annotation(self, node: ast.expr) -> None:
        outer, self.annotation = self.annotation, True
        self.visit(node)
        self.annotation = outer

    def _function(
        self,
        node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda,
        name: str | None,
        body: list[ast.stmt],
        is_task: bool,
    ) -> None:
        declared = _global_names(body)
        outer = {n for statement in body for n in _nonlocal_names(statement)}
        local = {argument.arg for argument in _arguments(node.args)}
        local |= {binding.name for binding in find_bindings(body)} - declared - outer
        # In a function, an annotation without a value makes a name local, too.
        annotated = (n.target for n in _walk_body(body) if isinstance(n, ast.AnnAssign))
        local |= {target.id for target in annotated if isinstance(target, ast.Name)}
        scope = _Scope("function", local, declared)
        scopes = [*self.scopes, scope]
        functions = (*self.functions, name) if name else self.functions
        tasks = (*self.tasks, name) if name and is_task else self.tasks

        def visit_body() -> None:
            before = self.scopes, self.functions, self.tasks, self.deferred
            self.scopes, self.functions, self.tasks, self.deferred = scopes, functions, tasks, True
            self.visit_block(body)
            self.scopes, self.functions, self.tasks, self.deferred = before

        self.module.bound |= {
            b.name
            for b in find_bindings(body)
            if b.name in declared and not isinstance(b.node, ast.AugAssign)
        }
        if self.deferred:
            visit_body()
        else:
            self.deferred_bodies.append(visit_body)

    def _comprehension(self, node: Any, *results: ast.expr) -> None:
        # As in Python, the first iterable is evaluated outside of the comprehension's scope, all others inside.
        first, *others = node.generators
        self.visit(first.iter)
        bound = {name for generator in node.generators for name in find_bound_names(generator.target)}
        self.scopes.append(_Scope("function", bound))
        for condition in first.ifs:
            self.visit(condition)
        for generator in others:
            self.visit(generator.iter)
            for condition in generator.ifs:
                self.visit(condition)
        for result in results:
            self.visit(result)
        self.scopes.pop()
        for name in find_bound_names(node):
            self.bind(name)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:
        self._comprehension(node, node.elt)

    visit_SetComp = visit_GeneratorExp = visit_ListComp  # noqa: N815

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node, node.key, node.value)


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    extra = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra]


def _walk_body(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body, without those of nested functions and classes."""
    for node in body:
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield from _walk_body(ast.iter_child_nodes(node))


def _global_names(body: Sequence[ast.stmt]) -> set[str]:
    return {name for node in _walk_body(body) if isinstance(node, ast.Global) for name in node.names}


def _nonlocal_names(statement: ast.stmt) -> Iterator[str]:
    for node in _walk_body([statement]):
        if isinstance(node, ast.Nonlocal):
            yield from node.names


def _dotted_names(expression: ast.expr) -> list[str]:
    """Return the names of a dotted expression or of a call's function: task, branch for ``@task.branch(…)``.

    >>> _dotted_names(ast.parse("sdk.task.branch(retries=1)", mode="eval").body)
    ['sdk', 'task', 'branch']
    """
    if isinstance(expression, ast.Call):
        return _dotted_names(expression.func)
    if isinstance(expression, ast.Attribute):
        return [*_dotted_names(expression.value), expression.attr]
    return [expression.id] if isinstance(expression, ast.Name) else []
