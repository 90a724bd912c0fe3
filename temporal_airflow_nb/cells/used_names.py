"""Names that Python source uses without binding them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from temporal_airflow_nb.cells.bound_names import FUNCTIONS, bindings, names_bound

_WITH_A_NAME: tuple[Any, ...] = (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)


@dataclass(frozen=True)
class Use:
    """A name that is used without being bound before.

    Attributes
    ----------
    name : str
        The name.
    line : int
        Where it is used.
    functions : tuple of str
        The functions around it, the outermost first; empty at the top level.
    task : str or None
        The innermost of them that a ``@task`` makes a task.
    deferred : bool
        Whether it is looked up only when a function is called.
    annotation : bool
        Whether it is part of a type annotation.
    guarded : bool
        Whether a ``NameError`` would be caught.
    """

    name: str
    line: int
    functions: tuple[str, ...] = ()
    task: str | None = None
    deferred: bool = False
    annotation: bool = False
    guarded: bool = False


def uses(tree: ast.Module) -> list[Use]:
    """Return the names that a module uses without having bound them, builtins among them.

    Examples
    --------
    >>> [(u.name, u.line, u.task) for u in uses(ast.parse("@task\\ndef load(n=TEN):\\n    return n * rate"))]
    [('task', 1, None), ('TEN', 2, None), ('rate', 3, 'load')]
    """
    finder = _Finder()
    finder.block(tree.body)
    finder.finish()
    return sorted(finder.found, key=lambda use: use.line)


@dataclass
class _Scope:
    kind: Literal["module", "class", "function"]
    bound: set[str] = field(default_factory=set)
    module_names: set[str] = field(default_factory=set)


class _Finder(ast.NodeVisitor):
    """Goes through source in the order in which it is executed; functions' bodies come after the module."""

    def __init__(self) -> None:
        self.found: list[Use] = []
        self.module = _Scope("module")
        self.scopes = [self.module]
        self.functions: tuple[str, ...] = ()
        self.tasks: tuple[str, ...] = ()
        self.deferred = False
        self.annotation = False
        self.guarded = False
        self.later: list[Callable[[], None]] = []

    def finish(self) -> None:
        while self.later:
            self.later.pop(0)()

    def block(self, body: Sequence[ast.stmt]) -> None:
        for node in body:
            self.visit(node)

    def bind(self, name: str) -> None:
        scope = self.scopes[-1]
        (self.module if name in scope.module_names else scope).bound.add(name)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.bind(node.id)
        elif not self._is_bound(node.id):
            self._note(node.id, node.lineno)

    def _note(self, name: str, line: int) -> None:
        task = self.tasks[-1] if self.tasks else None
        self.found.append(Use(name, line, self.functions, task, self.deferred, self.annotation, self.guarded))

    def _is_bound(self, name: str) -> bool:
        for scope in reversed(self.scopes):
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
            self._note(node.target.id, node.lineno)
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
        self.block([*node.body, *node.orelse])

    visit_AsyncFor = visit_For  # noqa: N815

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for binding in bindings([node]):
            self.bind(binding.name)

    visit_ImportFrom = visit_Import  # noqa: N815

    def visit_Global(self, node: ast.Global) -> None:
        self.scopes[-1].module_names.update(node.names)

    def generic_visit(self, node: ast.AST) -> None:
        super().generic_visit(node)
        name = getattr(node, "name", None) if isinstance(node, _WITH_A_NAME) else None
        if name:
            self.bind(name)
        if isinstance(node, ast.MatchMapping) and node.rest:
            self.bind(node.rest)

    def visit_Try(self, node: ast.Try) -> None:
        outer = self.guarded
        caught = (n for handler in node.handlers if handler.type for n in ast.walk(handler.type))
        self.guarded = outer or any(isinstance(n, ast.Name) and n.id == "NameError" for n in caught)
        self.block(node.body)
        self.guarded = outer
        for handler in node.handlers:
            self.visit(handler)
        self.block([*node.orelse, *node.finalbody])

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self.visit(node.type)
        if node.name:
            self.bind(node.name)
        self.block(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        with self._type_params(node):
            for part in [*node.bases, *node.keywords]:
                self.visit(part)
            self.scopes.append(_Scope("class", {"__module__", "__qualname__"}))
            outer, self.functions = self.functions, (*self.functions, node.name)
            self.block(node.body)
            self.functions = outer
            self.scopes.pop()
        self.bind(node.name)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        is_task = any("task" in _parts(decorator) for decorator in node.decorator_list)
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
        declared = _declared_global(body)
        outer = {n for statement in body for n in _nonlocals(statement)}
        local = {argument.arg for argument in _arguments(node.args)}
        local |= {binding.name for binding in bindings(body)} - declared - outer
        # An annotation alone makes a name the function's own.
        annotated = (n.target for n in _within(body) if isinstance(n, ast.AnnAssign))
        local |= {target.id for target in annotated if isinstance(target, ast.Name)}
        scope = _Scope("function", local, declared)
        scopes = [*self.scopes, scope]
        functions = (*self.functions, name) if name else self.functions
        tasks = (*self.tasks, name) if name and is_task else self.tasks

        def visit_body() -> None:
            before = self.scopes, self.functions, self.tasks, self.deferred
            self.scopes, self.functions, self.tasks, self.deferred = scopes, functions, tasks, True
            self.block(body)
            self.scopes, self.functions, self.tasks, self.deferred = before

        self.module.bound |= {
            b.name for b in bindings(body) if b.name in declared and not isinstance(b.node, ast.AugAssign)
        }
        if self.deferred:
            visit_body()
        else:
            self.later.append(visit_body)

    def _comprehension(self, node: Any, *results: ast.expr) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        bound = {name for generator in node.generators for name in names_bound(generator.target)}
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
        for name in names_bound(node):
            self.bind(name)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:
        self._comprehension(node, node.elt)

    visit_SetComp = visit_GeneratorExp = visit_ListComp  # noqa: N815

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node, node.key, node.value)


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    extra = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra]


def _within(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the statements of a function's body, not those of the functions and classes in it."""
    for node in body:
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield from _within(ast.iter_child_nodes(node))


def _declared_global(body: Sequence[ast.stmt]) -> set[str]:
    return {name for node in _within(body) if isinstance(node, ast.Global) for name in node.names}


def _nonlocals(statement: ast.stmt) -> Iterator[str]:
    for node in _within([statement]):
        if isinstance(node, ast.Nonlocal):
            yield from node.names


def _parts(expression: ast.expr) -> list[str]:
    """Return the names of a dotted expression, of a call's function: ``@task.branch(…)`` is task, branch.

    >>> _parts(ast.parse("sdk.task.branch(retries=1)", mode="eval").body)
    ['sdk', 'task', 'branch']
    """
    if isinstance(expression, ast.Call):
        return _parts(expression.func)
    if isinstance(expression, ast.Attribute):
        return [*_parts(expression.value), expression.attr]
    return [expression.id] if isinstance(expression, ast.Name) else []
