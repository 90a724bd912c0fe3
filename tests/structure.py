"""Measures the structure of the package: folders, imports between them, cycles, untyped dictionaries.

``python -m tests.structure`` prints the figures; ``tests/unit/test_layers.py`` holds the package to them.
``python -m tests.structure --package path/to/temporal_airflow_nb`` measures another checkout.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "temporal_airflow_nb"
ROOT = Path(__file__).parent.parent
UNTYPED = re.compile(r"\b(?:dict|Mapping|MutableMapping)\[str, Any\]")


@dataclass(frozen=True)
class Import:
    """One import statement of one module, resolved to a module."""

    importer: str
    imported: str
    line: int
    in_function: bool
    for_types_only: bool
    name: str
    alias: str | None

    @property
    def renames_module(self) -> bool:
        """Whether the statement gives a module another name than its own."""
        module = self.imported.rpartition(".")[2]
        return self.alias is not None and self.name == module and self.alias != module


class Structure:
    """The modules of a package and what they import, read from their source.

    Parameters
    ----------
    package
        The folder of the package.
    """

    def __init__(self, package: Path = ROOT / PACKAGE) -> None:
        self.package = package
        self.files = {
            _module(path.relative_to(package.parent)): path
            for path in sorted(package.rglob("*.py"))
            if "node_modules" not in path.parts
        }

    @cached_property
    def imports(self) -> list[Import]:
        """Every import of every module: at the top, inside functions, and for type checkers only."""
        return [found for module in self.files for found in self._imports_of(module)]

    @cached_property
    def internal(self) -> list[Import]:
        """The imports of modules of the package."""
        return [found for found in self.imports if found.imported in self.files]

    def _imports_of(self, module: str) -> Iterator[Import]:
        tree = ast.parse(self.files[module].read_text(encoding="utf-8"))
        for node, in_function, for_types_only in _import_statements(tree):
            for imported, name, alias in self._resolve(node):
                yield Import(module, imported, node.lineno, in_function, for_types_only, name, alias)

    def _resolve(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str, str | None]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, alias.name, alias.asname) for alias in node.names)
            return
        assert not node.level, "imports of this package are absolute"
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            yield (submodule if submodule in self.files else str(node.module)), alias.name, alias.asname

    def cycles(self) -> list[list[str]]:
        """Return the groups of modules that import each other in a circle, however indirectly."""
        graph: dict[str, set[str]] = {module: set() for module in self.files}
        for found in self.internal:
            if found.imported != found.importer:
                graph[found.importer].add(found.imported)
        return [sorted(group) for group in _strongly_connected(graph) if len(group) > 1]

    def upward(self, layers: list[str]) -> list[tuple[str, str, Import]]:
        """Return the imports that lead from a layer to one above it, with the two layers' names."""
        order = {layer: position for position, layer in enumerate(layers)}
        found = []
        for one in self.internal:
            importer, imported = self.layer(one.importer, layers), self.layer(one.imported, layers)
            if importer is None or imported is None or order[imported] < order[importer]:
                found.append((importer or "?", imported or "?", one))
        return found

    def layer(self, module: str, layers: list[str]) -> str | None:
        """Return the entry of the list of layers that a module belongs to: its own, else its nearest folder's."""
        path = self.files[module].relative_to(self.package)
        if str(path) in layers:
            return str(path)
        return next((f"{folder}/" for folder in path.parents if f"{folder}/" in layers), None)

    def untyped_per_thousand_lines(self) -> float:
        """Return how often ``dict[str, Any]`` or ``Mapping[str, Any]`` is written in 1,000 lines."""
        texts = [path.read_text(encoding="utf-8") for path in self.files.values()]
        lines = sum(text.count("\n") for text in texts)
        return 1000 * sum(len(UNTYPED.findall(text)) for text in texts) / lines

    def modules_per_folder(self) -> Counter[str]:
        """Return how many modules lie in each folder, ``__init__.py`` left out."""
        return Counter(
            str(path.parent.relative_to(self.package))
            for path in self.files.values()
            if path.name != "__init__.py"
        )


def listed_layers(document: Path = ROOT / "ARCHITECTURE.md") -> list[str]:
    """Return the folders and modules that ARCHITECTURE.md lists, top layer first.

    The list is the one block of the document that begins with ``temporal_airflow_nb/``. The first word of each
    of its lines is a folder (``runs/``, ``client/rest/``) or a module (``aio.py``).
    """
    block = re.search(rf"^```text\n{PACKAGE}/\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    assert block, f"{document.name} has no list of layers."
    entries = [line.split()[0] for line in block[1].splitlines() if line.startswith("  ") and line[2] != " "]
    assert len(entries) == len(set(entries)), "An entry is listed twice."
    return entries


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _import_statements(
    node: ast.AST, in_function: bool = False, for_types_only: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, in_function, for_types_only
            continue
        function = in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        types = for_types_only or (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING")
        yield from _import_statements(child, function, types)


def _strongly_connected(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield the strongly connected components of a graph (Tarjan 1972, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    for root in graph:
        if root in index:
            continue
        work = [(root, iter(sorted(graph[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            node, successors = work[-1]
            for successor in successors:
                if successor not in index:
                    index[successor] = low[successor] = len(index)
                    stack.append(successor)
                    work.append((successor, iter(sorted(graph[successor]))))
                    break
                if successor in stack:
                    low[node] = min(low[node], index[successor])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    at = stack.index(node)
                    yield stack[at:]
                    del stack[at:]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, default=ROOT / PACKAGE)
    parser.add_argument("--layers", type=Path, default=ROOT / "ARCHITECTURE.md")
    options = parser.parse_args()
    structure = Structure(options.package.resolve())
    lines = sum(path.read_text(encoding="utf-8").count("\n") for path in structure.files.values())
    print(f"modules: {len(structure.files)}, lines: {lines}")
    print(
        f"dict[str, Any] or Mapping[str, Any] per 1,000 lines: {structure.untyped_per_thousand_lines():.1f}"
    )
    aliased = [one for one in structure.internal if one.renames_module]
    print(f"imports within the package: {len(structure.internal)}, under another name: {len(aliased)}")
    cycles = structure.cycles()
    print(f"import cycles between files: {len(cycles)} {[len(cycle) for cycle in cycles]}")
    for cycle in cycles:
        print("   ", ", ".join(name.removeprefix(f"{PACKAGE}.") for name in cycle))
    if options.package == ROOT / PACKAGE:
        upward = structure.upward(listed_layers(options.layers))
        print(f"imports against the order of the layers: {len(upward)}")
        for importer, imported, one in upward:
            print(f"    {importer} -> {imported}: {one.importer}:{one.line} imports {one.imported}")
    print("modules per folder:")
    for folder, count in structure.modules_per_folder().most_common():
        print(f"    {count:3} {folder}")


if __name__ == "__main__":
    main()
