"""Tells the modules of installed packages from a user's own, which may change between two tries.

Task processes find out with :func:`installed_modules` what a DAG file imports. The worker process compares
:func:`installation_stamp` before each try, so that an upgraded package is noticed.
"""

from __future__ import annotations

import functools
import os
import site
import sys
import sysconfig
from collections.abc import Iterable


@functools.cache
def installed_folders() -> tuple[str, ...]:
    """Return the folders of the standard library and of installed packages; each path ends with a separator."""
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders.update(site.getsitepackages())
    if site.ENABLE_USER_SITE:
        folders.add(site.getusersitepackages())
    folders |= {os.path.realpath(folder) for folder in folders}
    return tuple(sorted(os.path.join(folder, "") for folder in folders))


def is_installed(path: str) -> bool:
    """
    Return whether a module's file belongs to an installed package or the standard library.

    A package that is linked into an installation's folder for development counts as the user's own.

    Examples
    --------
    >>> is_installed(os.__file__)
    True
    >>> is_installed("/home/ada/dags/etl.py")
    False
    """
    folder = next((folder for folder in installed_folders() if path.startswith(folder)), None)
    return folder is not None and not _is_link(folder + path[len(folder) :].split(os.sep, 1)[0])


@functools.cache
def _is_link(path: str) -> bool:
    return os.path.islink(path)


def installed_modules(names: Iterable[str]) -> list[str]:
    """Return the names of those loaded modules that belong to installed packages, in the given order."""
    found = []
    for name in names:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        # Modules that Airflow or a library creates have no spec, or a name that differs from the one in their spec.
        if spec is None or spec.name != name or name == "__main__":
            continue
        origin = spec.origin
        if origin in ("built-in", "frozen") or (spec.has_location and origin and is_installed(origin)):
            found.append(name)
    return found


def installation_stamp() -> list[int]:
    """Return values that change when a package is installed, upgraded or removed."""
    # Both pip and uv add and remove entries of these folders, at least the package's `.dist-info` folder.
    stamps = []
    for folder in installed_folders():
        try:
            stamps.append(os.stat(folder).st_mtime_ns)
        except OSError:
            stamps.append(0)
    return stamps
