"""Find modules beside the notebook.

The kernel can import them; a task can only if its file adds their folder to ``sys.path``.
"""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
from collections.abc import Iterable
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path


def find_imported_modules(tree: ast.AST) -> set[str]:
    """Return the top-level names of the modules that source imports, also in functions.

    >>> sorted(find_imported_modules(ast.parse("import os.path, a.b\\ndef f():\\n    from c.d import e")))
    ['a', 'c', 'os']
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def find_folders(modules: Iterable[str], folder: Path) -> dict[str, list[str]]:
    """Return the folders of modules that aren't installed, each with its modules.

    Parameters
    ----------
    modules
        Top-level names of modules.
    folder
        The folder of the notebook.
    """
    installed = _installed()
    candidates = [str(folder.resolve()), os.path.realpath(os.getcwd())]
    candidates += [os.path.realpath(entry) for entry in sys.path if entry and entry not in installed]
    roots = [root for root in dict.fromkeys(candidates) if os.path.isdir(root) and root not in installed]
    found: dict[str, list[str]] = {}
    for module in sorted(modules):
        if module in sys.stdlib_module_names:
            continue
        for root in roots:
            if _is_in(module, root):
                found.setdefault(root, []).append(module)
                break
    return found


def _is_in(module: str, root: str) -> bool:
    spec = PathFinder.find_spec(module, [root])
    if spec is None:
        return False
    if spec.origin is not None:
        return True
    # A folder without `__init__.py` is a package only if no other entry of `sys.path` has the module.
    others = [entry for entry in sys.path if os.path.realpath(entry or ".") != root]
    elsewhere = PathFinder.find_spec(module, others)
    return elsewhere is None and any(Path(root, module).rglob("*.py"))


@lru_cache(maxsize=1)
def _installed() -> frozenset[str]:
    """Return the folders from which every process of this environment can import."""
    paths = sysconfig.get_paths()
    packages = {paths["purelib"], paths["platlib"]}
    found = {*packages, paths["stdlib"], paths["platstdlib"], os.path.join(paths["stdlib"], "lib-dynload")}
    found |= set(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    for package in packages:
        for file in Path(package).glob("*.pth"):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            found |= {
                os.path.join(package, line.strip()) for line in lines if line[:1] not in "#" and line.strip()
            }
    return frozenset({*found, *map(os.path.realpath, found)})
