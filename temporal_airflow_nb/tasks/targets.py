"""Entry points of the processes that are forked from a zygote: Airflow's own functions.

Everything here but :func:`send_workload` runs in the forked process, which has one thread and no database access.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from socket import MSG_WAITALL, socket
from typing import Any, NoReturn

Pipes = tuple[int, int, int, int]
"""The descriptors of the child's ends: requests, stdout, stderr, logs."""


def _task() -> None:
    from airflow.sdk.execution_time.task_runner import main

    main()


def _dag_processor() -> None:
    from airflow.dag_processing.processor import _parse_file_entrypoint

    _parse_file_entrypoint()


def _triggerer() -> None:
    from temporal_airflow_nb.tasks.trigger_runner import PromptTriggerRunner

    PromptTriggerRunner().run()


def _callback() -> None:
    """Run a callback of a deadline with the function that Airflow runs in the process it forks for a callback."""
    from airflow.executors.workloads import ExecuteCallback
    from airflow.sdk.execution_time.callback_supervisor import CallbackSubprocess
    from airflow.sdk.execution_time.supervisor import WatchedSubprocess

    # `CallbackSubprocess.start` defines that function inside itself and passes it to `WatchedSubprocess.start`, which
    # forks. This process is forked already: a class in between returns the function instead.
    class KeepsTarget(WatchedSubprocess):  # type: ignore[misc]
        @classmethod
        def start(cls, *, target: Callable[[], None], **_: Any) -> Any:
            return target

    class CallbackTarget(CallbackSubprocess, KeepsTarget):  # type: ignore[misc]
        pass

    workload = ExecuteCallback.model_validate_json(_receive_workload())
    start: Callable[..., Any] = CallbackTarget.start
    target = start(
        id=str(workload.callback.id),
        callback_path=workload.callback.data.get("path", ""),
        callback_kwargs=workload.callback.data.get("kwargs", {}),
        dag_rel_path=workload.dag_rel_path,
        bundle_info=workload.bundle_info,
        client=None,
    )
    target()


def send_workload(requests: socket, workload: str) -> None:
    """Send a callback's process its workload, as the first message on the request socket."""
    data = workload.encode()
    requests.sendall(len(data).to_bytes(4, "big") + data)


def _receive_workload() -> bytes:
    # Airflow's `_fork_main` has made the request socket the standard input. A duplicate, because closing the socket
    # object must not close it.
    with socket(fileno=os.dup(0)) as requests:
        length = int.from_bytes(requests.recv(4, MSG_WAITALL), "big")
        return requests.recv(length, MSG_WAITALL)


TARGETS: dict[str, Callable[[], None]] = {
    "task": _task,
    "dag_processor": _dag_processor,
    "triggerer": _triggerer,
    "callback": _callback,
}


def run_target(target: str, pipes: Pipes) -> NoReturn:
    """Run ``target`` in this process, connected to its supervisor; never returns."""
    # What `WatchedSubprocess.start` calls in the child after its fork: it sets up stdio and logs, blocks the database
    # and ends the process with `os._exit`.
    from airflow.sdk.execution_time.supervisor import _fork_main

    requests, stdout, stderr, logs = pipes
    _fork_main(socket(fileno=requests), socket(fileno=stdout), socket(fileno=stderr), logs, TARGETS[target])
    os._exit(0)
