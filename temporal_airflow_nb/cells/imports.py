"""Format import statements."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from temporal_airflow_nb.cells.literals import Imported

_WIDTH = 100


def format_imports(
    imports: Iterable[Imported],
    future: Sequence[str],
    folders: Mapping[str, Sequence[str]],
    local: Iterable[str] = (),
) -> Iterator[str]:
    """Yield sorted import statements, those of local modules last.

    Parameters
    ----------
    imports
        The imports, without those of ``__future__``.
    future
        Features to import from ``__future__``.
    folders
        Folders to add to ``sys.path``, each with its modules.
    local
        Further modules that aren't installed.
    """
    if future:
        yield from [f"from __future__ import {', '.join(future)}", ""]
    own = {*local, *(module for modules in folders.values() for module in modules)}
    needed = {*imports, Imported("sys", None, "sys")} if folders else set(imports)
    groups: list[list[Imported]] = [[], [], []]
    for statement in needed:
        top = statement.module.split(".")[0]
        groups[2 if top in own else 0 if top in sys.stdlib_module_names else 1].append(statement)
    for index, group in enumerate(groups):
        if index == 2 and folders:
            yield from [*(f"sys.path.insert(0, {folder!r})" for folder in reversed(list(folders))), ""]
        if group:
            yield from [*_statements(group), ""]


def _statements(imports: Iterable[Imported]) -> Iterator[str]:
    plain = [needed for needed in imports if needed.attribute is None]
    yield from (needed.statement() for needed in sorted(plain, key=lambda needed: needed.module.lower()))
    rest = sorted(
        (needed for needed in imports if needed.attribute is not None),
        key=lambda needed: (needed.module.lower(), needed.module, str(needed.attribute).lower()),
    )
    for module, group in groupby(rest, key=lambda needed: needed.module):
        names = [needed.alias() for needed in group]
        line = f"from {module} import {', '.join(names)}"
        if len(line) <= _WIDTH:
            yield line
        else:
            yield from [f"from {module} import (", *(f"    {name}," for name in names), ")"]
