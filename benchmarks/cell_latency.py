"""Measures the time from Shift+Enter on a cell to the start of its run's first task, in a real kernel."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from temporal_airflow_nb import LocalStack, Run

CELL = """%%temporal_dag
from airflow.sdk import dag, task


@dag(schedule=None)
def sums():
    @task
    def numbers():
        return [1, 2, {repetition}]

    @task
    def square(number):
        return number * number * FACTOR

    @task
    def total(squares):
        return sum(squares)

    total(square.expand(number=numbers()))


sums()
"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--repetitions", type=int, default=15, help="timed repetitions, after two for the warm-up"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, LocalStack(home) as stack:
        os.environ["TEMPORAL_AIRFLOW_HOME"] = home
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel()
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
            execute(client, "%load_ext temporal_airflow_nb\nFACTOR = 2")
            measured = [measure(client, stack, n) for n in range(options.repetitions + 2)][2:]
        finally:
            client.stop_channels()
            manager.shutdown_kernel()
    for name, seconds in (
        ("first task running", [s for s, _ in measured]),
        ("cell done", [s for _, s in measured]),
    ):
        print(
            f"{name}: median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s"
        )


def measure(client: BlockingKernelClient, stack: LocalStack, repetition: int) -> tuple[float, float]:
    """Execute an edited cell; return the seconds until its first task started, and until the cell was done."""
    began = time.time()
    execute(client, CELL.format(repetition=repetition))
    done = time.time()
    latest = stack.client.list_runs(limit=1)[0]
    run = Run(stack.client, latest["dag_id"], latest["run_id"])
    assert run.wait(timeout=60) == "success"
    started = min(datetime.fromisoformat(task["start_date"]) for task in run.snapshot()["tasks"])
    return started.timestamp() - began, done - began


def execute(client: BlockingKernelClient, source: str) -> None:
    """Execute a cell, and wait for its reply."""
    reply = client.execute_interactive(source, timeout=120, output_hook=lambda _: None)
    assert reply["content"]["status"] == "ok", reply["content"]


if __name__ == "__main__":
    main()
