"""Reports from a task process which installed modules its DAG file has imported.

The report is one line of JSON on the exit channel of the process, sent once Airflow has executed the DAG file. The
worker has later tries of the file forked from a zygote that has imported these modules already.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, TypedDict

from temporal_airflow_nb.tasks.installed import installed_modules


class ImportReport(TypedDict):
    """The installed modules that a DAG file imports."""

    modules: list[str]
    """In the order in which they were imported; without those that the process had from its zygote."""
    seconds: float
    """The time that executing the file has taken."""
    obstacle: str
    """Why they must not be imported ahead of the file; empty if they can be."""


def report_imports(channel: int) -> None:
    """Have this process report the imports of the first DAG file that it executes, and close ``channel`` then."""
    from airflow.dag_processing import dagbag, processor

    original = dagbag.BundleDagBag
    known = set(sys.modules)
    open_channel: int | None = channel

    def bundle_dag_bag(*args: Any, **kwargs: Any) -> Any:
        nonlocal open_channel
        began, environment = time.monotonic(), dict(os.environ)
        try:
            return original(*args, **kwargs)
        finally:
            if open_channel is not None:
                with open(open_channel, "wb") as file:
                    open_channel = None
                    file.write(_report(known, environment, time.monotonic() - began))

    # `task_runner.parse` imports the class from `dagbag` when it is called; `processor` has imported it already.
    dagbag.BundleDagBag = processor.BundleDagBag = bundle_dag_bag


def _report(known: set[str], environment: dict[str, str], seconds: float) -> bytes:
    modules = installed_modules(name for name in list(sys.modules) if name not in known)
    if not modules:
        return b""
    # A library may read a variable when it is imported, as NumPy reads OMP_NUM_THREADS: the file sets it before that.
    changed = sorted(name for name, value in os.environ.items() if environment.get(name) != value)
    obstacle = f"the file sets environment variables: {', '.join(changed)}" if changed else ""
    report: ImportReport = {"modules": modules, "seconds": seconds, "obstacle": obstacle}
    return json.dumps(report).encode() + b"\n"
