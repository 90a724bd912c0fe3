"""Parses a DAG file in its zygote, and recognises when the result is out of date.

:func:`parse` runs once in each file zygote, which has one thread. :func:`is_current` runs in the worker process, before
each task of the file.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

# A file that calls this function may build another DAG for each task, so that no parse can be shared.
_PARSING_CONTEXT = "get_parsing_context"

# Set while a file is parsed. Python has no way to remove an audit hook, so that the hook stays and checks this.
_opened_files: set[str] | None = None


def _on_audit_event(event: str, args: tuple[Any, ...]) -> None:
    if (
        _opened_files is not None
        and event in ("open", "os.listdir", "os.scandir")
        and isinstance(args[0], str)
    ):
        _opened_files.add(args[0])


class ParseReport(TypedDict):
    """A file zygote's report to the worker, sent as JSON."""

    shared: bool
    """Whether tasks can be forks of the zygote."""
    reason: str
    """The reason if they can't."""
    stamps: dict[str, list[int]]
    """The stamp of each file that was read, by its path."""


@dataclass
class ParsedFile:
    """The result of parsing a file. ``bag`` is None if each task has to parse the file itself, for ``reason``."""

    path: str
    bag: DagBag | None
    reason: str = ""
    stamps: dict[str, list[int]] = field(default_factory=dict)

    def report(self) -> ParseReport:
        """Return the part of the result that the worker needs, as JSON-able data."""
        return {"shared": self.bag is not None, "reason": self.reason, "stamps": self.stamps}


def stamp(path: str) -> list[int]:
    """Return values of a file that change when it is edited; an empty list if there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_mtime_ns, found.st_size, found.st_ino]


def is_current(stamps: dict[str, list[int]]) -> bool:
    """Return whether every file that was read while parsing is still the same."""
    return all(stamp(path) == known for path, known in stamps.items())


def parse(path: str, bundle_name: str, bundle_path: str) -> ParsedFile:
    """Parse a file as a task process would. Never raises: a failure is the result's ``reason``."""
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk.execution_time.supervisor import block_orm_access

    # As in a task process: the file's code must not reach the database, and a connection opened here would be shared
    # by all forks.
    block_orm_access()
    known = set(sys.modules)
    with _record_opened_files() as files, _refuse_stored_values() as refused:
        try:
            parsed = BundleDagBag(
                dag_folder=path,
                safe_mode=False,
                load_op_links=False,
                bundle_path=bundle_path,
                bundle_name=bundle_name,
            )
            bag: DagBag | None = parsed
            reason = "; ".join(parsed.import_errors) if parsed.import_errors else ""
        except BaseException as error:
            bag, reason = None, repr(error)
    files |= {module.__file__ for name, module in _new_modules(known) if getattr(module, "__file__", None)}
    sources = {path} | {file for file in files if _may_change(file, bundle_path)}
    if refused:
        reason = "reads a variable or connection at the top level"
    elif any(_mentions_parsing_context(source) for source in sources):
        reason = f"uses {_PARSING_CONTEXT}()"
    stamps = {source: stamp(source) for source in sources}
    return ParsedFile(path, None if reason else bag, reason, stamps)


def _new_modules(known: set[str]) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in list(sys.modules.items()) if name not in known)


def _may_change(file: str, bundle_path: str) -> bool:
    """Return whether a file may change while the worker runs: any file outside the installed packages."""
    if file.startswith(bundle_path.rstrip("/") + "/") or file == bundle_path:
        return "__pycache__" not in file
    installed = (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), "/proc", "/sys", "/dev")
    return os.path.isabs(file) and not file.startswith(installed) and "__pycache__" not in file


def _mentions_parsing_context(source: str) -> bool:
    if not source.endswith(".py"):
        return False
    try:
        with open(source, encoding="utf-8", errors="replace") as file:
            return _PARSING_CONTEXT in file.read()
    except OSError:
        return False


@contextmanager
def _record_opened_files() -> Iterator[set[str]]:
    global _opened_files
    sys.addaudithook(_on_audit_event)
    _opened_files = set()
    try:
        yield _opened_files
    finally:
        _opened_files = None


@contextmanager
def _refuse_stored_values() -> Iterator[list[str]]:
    """
    Refuse each read of a variable or connection, and yield the list of refused reads.

    Their values may change between two tasks while no file changes, so that each task has to parse such a file itself.
    """
    from airflow.sdk import Connection, Variable

    refused: list[str] = []

    def refuse(*args: Any, **_: Any) -> Any:
        refused.append(str(args[:1]))
        raise RuntimeError("Variables and connections can't be read here: they are read when the task runs.")

    originals = {cls: cls.__dict__["get"] for cls in (Connection, Variable)}
    for cls in originals:
        cls.get = staticmethod(refuse)
    try:
        yield refused
    finally:
        for cls, original in originals.items():
            cls.get = original
