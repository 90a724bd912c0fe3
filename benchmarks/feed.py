"""Measures the requests of a live grid: a whole run with very many task instances, and its changes."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sqlalchemy as sa

from benchmarks.frames import WIDE, multiply
from temporal_airflow_nb import LocalStack, Run
from temporal_airflow_nb.messages.grid import GridChanges


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, LocalStack(home, db=options.database) as stack:
        run = stack.run(WIDE)
        run.wait(timeout=120)
        engine = sa.create_engine(stack.status()["env"]["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
        multiply(engine, run, options.instances)
        report("the whole grid, first", [whole(run, window=2)])
        report("the whole grid, again", [whole(run, window=2) for _ in range(options.repetitions)])
        late, sizes = follow(run, options.repetitions)
    report("a task starts or ends → answer", late)
    print(f"{'an answer with changes':32} {statistics.median(sizes):8,.0f} bytes, {len(sizes)} of them")
    print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f}, {options.database}, {datetime.now():%Y-%m-%d}"
    )


def whole(run: Run, window: int) -> float:
    """Return the seconds until the whole grid is there."""
    began = time.perf_counter()
    answer = feed(run, None, window)
    took = time.perf_counter() - began
    assert answer["full"], answer["cursor"]
    return took


def feed(run: Run, after: str | None, window: int, timeout: float = 10.0) -> GridChanges:
    """Return the next answer."""
    return run.client.get_grid_changes(run.dag_id, run.run_id, after=after, runs=window, timeout=timeout)


def follow(run: Run, repetitions: int) -> tuple[list[float], list[int]]:
    """Run one task of the run repeatedly; return the delay of the answers after each event."""
    late: list[float] = []
    sizes: list[int] = []
    cursor = feed(run, None, 2)["cursor"]
    for _ in range(repetitions):
        begun = datetime.now(timezone.utc)
        run.clear("step_19", map_index=0)
        ended = False
        while not ended:
            answer = feed(run, cursor, 2)
            now = datetime.now(timezone.utc)
            cursor = answer["cursor"]
            sizes.append(len(json.dumps(answer)))
            late += [(now - moment).total_seconds() for moment in events(answer) if moment > begun]
            ended = answer["runs"][0]["state"] == "success" and bool(
                answer["runs"][0]["end_date"] > begun.isoformat()
            )
    return late, sizes


def events(answer: dict[str, Any]) -> Iterator[datetime]:
    """Yield the times at which the tasks of an answer reached their states."""
    for task in answer["tasks"]:
        moment = {"running": task["start_date"], "success": task["end_date"]}.get(task["state"])
        if moment:
            yield datetime.fromisoformat(moment)


def report(what: str, seconds: list[float]) -> None:
    """Print the median and the maximum."""
    print(f"{what:32} {statistics.median(seconds) * 1000:8.0f} ms, at most {max(seconds) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
