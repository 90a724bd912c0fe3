"""Parsing a DAG file in its zygote, and knowing when that parse is out of date."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

# A file that asks which DAG it is parsed for builds another DAG for each task: nothing to share.
_PARSING_CONTEXT = "get_parsing_context"

_opened_files: set[str] | None = None


def _on_audit_event(event: str, args: tuple[Any, ...]) -> None:
    if (
        _opened_files is not None
        and event in ("open", "os.listdir", "os.scandir")
        and isinstance(args[0], str)
    ):
        _opened_files.add(args[0])


@dataclass
class ParsedFile:
    """What a file zygote knows. ``bag`` is None where tasks have to parse the file themselves."""

    path: str
    bag: DagBag | None
    reason: str = ""
    stamps: dict[str, list[int]] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """Return what the worker has to know, as JSON."""
        return {"shared": self.bag is not None, "reason": self.reason, "stamps": self.stamps}


def stamp(path: str) -> list[int]:
    """Return what changes when a file is edited, or an empty list where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_mtime_ns, found.st_size, found.st_ino]


def is_current(stamps: dict[str, list[int]]) -> bool:
    """Return whether no file that was read while parsing has changed since."""
    return all(stamp(path) == known for path, known in stamps.items())


def parse(path: str, bundle_name: str, bundle_path: str) -> ParsedFile:
    """Parse ``path`` as a task process would; never raises."""
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk.execution_time.supervisor import block_orm_access

    block_orm_access()
    known = set(sys.modules)
    with _record_opened_files() as files, _refuse_stored_values() as refused:
        try:
            bag: DagBag | None = BundleDagBag(
                dag_folder=path,
                safe_mode=False,
                load_op_links=False,
                bundle_path=bundle_path,  # type: ignore[arg-type]
                bundle_name=bundle_name,
            )
            reason = "; ".join(bag.import_errors) if bag.import_errors else ""  # type: ignore[union-attr]
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
    """Installed packages don't change under a running worker; everything else may."""
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
    Note each read of a variable or connection, and refuse it.

    Their values may change between two tasks without any file changing, so such a file is parsed by every task.
    """
    from airflow.sdk import Connection, Variable

    refused: list[str] = []

    def refuse(*args: Any, **_: Any) -> Any:
        refused.append(str(args[:1]))
        raise RuntimeError("variables and connections are read when the task runs")

    originals = {cls: cls.__dict__["get"] for cls in (Connection, Variable)}
    for cls in originals:
        cls.get = staticmethod(refuse)
    try:
        yield refused
    finally:
        for cls, original in originals.items():
            cls.get = original
