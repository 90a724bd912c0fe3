"""The two sides of a benchmark: each runs a workload and returns its time and memory."""

from __future__ import annotations

import os
import threading
import time
import uuid
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from benchmarks.native_airflow import NativeAirflow
from benchmarks.processes import cpu_seconds, family, memory_bytes

DAGS = Path(__file__).parent / "dags"
TIMEOUT = 600.0


@dataclass(frozen=True)
class Workload:
    """Some runs of one DAG, started at the same time."""

    name: str
    title: str
    runs: int = 1

    @property
    def path(self) -> Path:
        return DAGS / f"{self.name}.py"

    @property
    def dag_id(self) -> str:
        return f"bench_{self.name}"


WORKLOADS = [
    Workload("chain", "20 tasks in a chain"),
    Workload("fan_out", "50 tasks side by side, a join"),
    Workload("mapped", "50 mapped task instances, a join"),
    Workload("many_runs", "10 runs of 10 tasks at once", runs=10),
]


@dataclass(frozen=True)
class Sample:
    """One repetition: seconds from the first trigger to the end of the last run, and processor seconds."""

    wall: float
    cpu: float

    def as_json(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in asdict(self).items()}


class Side(ABC):
    """A system that runs DAGs in its own processes."""

    name: str

    @abstractmethod
    def start(self) -> None:
        """Start, and return when the side is ready."""

    @abstractmethod
    def stop(self) -> None:
        """End every process."""

    @abstractmethod
    def processes(self) -> list[psutil.Process]:
        """Return the running processes."""

    @abstractmethod
    def execute(self, workload: Workload, run_ids: list[str]) -> float:
        """Run the workload and return the seconds that it took."""

    def measure(self, workload: Workload) -> Sample:
        """Run the workload once."""
        before = cpu_seconds(self.processes())
        wall = self.execute(workload, new_run_ids(workload))
        return Sample(wall, cpu_seconds(self.processes()) - before)

    def peak_memory(self, workload: Workload) -> int:
        """Run the workload once without timing it, and return the peak memory: PSS, in bytes."""
        peak = memory_bytes(self.processes())
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.5):
                peak = max(peak, memory_bytes(self.processes()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            self.execute(workload, new_run_ids(workload))
        finally:
            done.set()
            watcher.join()
        return peak


class Native(Side):
    """Stock Airflow with its scheduler, its DAG processor, its API server and LocalExecutor, on SQLite."""

    name = "native"

    def __init__(self, home: Path, settings: dict[str, dict[str, str]] | None = None) -> None:
        self._airflow = NativeAirflow(home, {"benchmarks": DAGS}, settings=settings)

    def start(self) -> None:
        self._airflow.start()

    def stop(self) -> None:
        self._airflow.stop()

    def processes(self) -> list[psutil.Process]:
        return self._airflow.processes()

    def execute(self, workload: Workload, run_ids: list[str]) -> float:
        started = time.time()
        for run_id in run_ids:
            self._airflow.trigger(workload.dag_id, run_id, logical_date=None)
        self._airflow.wait([(workload.dag_id, run_id) for run_id in run_ids], timeout=TIMEOUT, poll=0.5)
        marks = ", ".join("?" * len(run_ids))
        with self._airflow.connect() as connection:
            rows = connection.execute(
                f"SELECT state, end_date FROM dag_run WHERE dag_id = ? AND run_id IN ({marks})",
                (workload.dag_id, *run_ids),
            ).fetchall()
        check({state for state, _ in rows}, workload)
        ended = max(datetime.fromisoformat(end).replace(tzinfo=timezone.utc) for _, end in rows)
        return ended.timestamp() - started


class Embedded(Side):
    """The embedded stack, used as from a notebook: ``stack.run(path)`` and ``run.wait()``."""

    name = "embedded"

    def __init__(self, home: Path) -> None:
        from temporal_airflow_nb import LocalStack

        self._stack: Any = LocalStack(home)

    def start(self) -> None:
        self._stack.start()

    def stop(self) -> None:
        self._stack.stop()

    def processes(self) -> list[psutil.Process]:
        pids = {service["pid"] for service in self._stack.status()["services"] if service["pid"]}
        managers = {psutil.Process(pid).ppid() for pid in pids} - {1, os.getpid()}
        return family(pids | managers)

    def execute(self, workload: Workload, run_ids: list[str]) -> float:
        started = time.time()
        runs = [self._stack.run(workload.path, dag_id=workload.dag_id, run_id=run_id) for run_id in run_ids]
        states = {run.wait(timeout=TIMEOUT) for run in runs}
        took = time.time() - started
        check(states, workload)
        return took


def new_run_ids(workload: Workload) -> list[str]:
    """Return new ids for the workload's runs."""
    stem = uuid.uuid4().hex[:8]
    return [f"bench-{stem}-{number}" for number in range(workload.runs)]


def check(states: set[str], workload: Workload) -> None:
    """Raise an error if a run didn't succeed: its time would be meaningless."""
    if states != {"success"}:
        raise RuntimeError(f"{workload.name} ended as {sorted(states)}")
