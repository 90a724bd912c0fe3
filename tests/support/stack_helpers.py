"""Functions for tests that run DAGs and kill processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from temporalio.client import Client

from tests.support.paths import INTEGRATION_DAGS
from tests.support.waiting import until as until

DAGS = INTEGRATION_DAGS


def lines(trace: Path, prefix: str) -> list[str]:
    """Return the lines of a trace file that begin with ``prefix``."""
    return (
        [line for line in trace.read_text().splitlines() if line.startswith(prefix)] if trace.exists() else []
    )


def pid_of(stack: Any, service: str) -> int:
    """Return the pid of one of a stack's services."""
    return next(row["pid"] for row in stack.status()["services"] if row["name"] == service)


def kill(pid: int) -> None:
    """Kill a process with SIGKILL."""
    os.kill(pid, signal.SIGKILL)


def states(run: Any) -> dict[str, str]:
    """Return the states of a run's tasks by task id."""
    return dict(zip(run.tasks["task_id"], run.tasks["state"], strict=True))


def tries(run: Any) -> dict[str, int]:
    """Return the try numbers of a run's tasks by task id."""
    return dict(zip(run.tasks["task_id"], run.tasks["try_number"], strict=True))


@contextlib.contextmanager
def worker(environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run ``temporal-airflow worker`` inside the block, with these variables in addition to the test's own."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "temporal_airflow_nb.cli.main", "worker"],
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: process.poll() is not None or "Working for" in log.read_text(), "the worker", 120)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def zygote_of(pid: int) -> psutil.Process:
    """Return the process that a task process was forked from."""
    parent = psutil.Process(pid).parent()
    assert parent is not None
    return parent


def with_client(stack: Any, use: Any) -> Any:
    """Call ``use`` with a client of the stack's Temporal server; return its result."""
    env = stack.status()["env"]

    async def call():
        return await use(await Client.connect(env["TEMPORAL_ADDRESS"], namespace=env["TEMPORAL_NAMESPACE"]))

    return in_a_loop(call())


def in_a_loop(coroutine: Any) -> Any:
    """Run a coroutine in a thread: Playwright keeps a loop running in this one once a browser test has run."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
