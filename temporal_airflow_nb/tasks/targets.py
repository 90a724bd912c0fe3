"""What a process forked from a zygote runs: Airflow's own entry points, given the DAG that is parsed already."""

from __future__ import annotations

import os
from collections.abc import Callable
from socket import socket
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from temporal_airflow_nb.tasks.parsing import ParsedFile

Pipes = tuple[int, int, int, int]
"""The child's ends: requests, stdout, stderr, logs."""


def _task() -> None:
    from airflow.sdk.execution_time.task_runner import main

    main()


def _dag_processor() -> None:
    from airflow.dag_processing.processor import _parse_file_entrypoint

    _parse_file_entrypoint()


TARGETS: dict[str, Callable[[], None]] = {"task": _task, "dag_processor": _dag_processor}


def share_bag(parsed: ParsedFile) -> None:
    """Give the parsed DAGs to whatever parses the same file in this process."""
    from airflow.dag_processing import dagbag, processor

    original = dagbag.BundleDagBag

    def bundle_dag_bag(*args: Any, **kwargs: Any) -> Any:
        if os.path.realpath(kwargs.get("dag_folder", "")) == os.path.realpath(parsed.path):
            return parsed.bag
        return original(*args, **kwargs)

    dagbag.BundleDagBag = bundle_dag_bag  # type: ignore[assignment,misc]
    processor.BundleDagBag = bundle_dag_bag  # type: ignore[attr-defined]


def enter(target: str, pipes: Pipes, parsed: ParsedFile | None) -> NoReturn:
    """Run ``target`` in this process, connected to its supervisor; never returns."""
    from airflow.sdk.execution_time.supervisor import _fork_main

    if parsed is not None:
        share_bag(parsed)
    requests, stdout, stderr, logs = pipes
    _fork_main(socket(fileno=requests), socket(fileno=stdout), socket(fileno=stderr), logs, TARGETS[target])
    os._exit(0)
