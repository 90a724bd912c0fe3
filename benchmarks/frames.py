"""Measures `run.tasks` of a run with very many task instances, and `pandas.read_sql` of the same rows."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pandas as pd
import sqlalchemy as sa

from temporal_airflow_nb import LocalStack, Run

WIDE = Path(__file__).parent / "dags" / "wide.py"
COLUMNS = (
    "task_id, map_index, state, try_number, max_tries, operator, start_date, end_date, duration, queued_dttm, pool, "
    "rendered_map_index"
)
MOMENTS = ("start_date", "end_date", "queued_dttm")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument(
        "--repetitions", type=int, default=9, help="timed repetitions, after one for the warm-up"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, LocalStack(home, db=options.database) as stack:
        run = stack.run(WIDE)
        run.wait(timeout=120)
        engine = sa.create_engine(stack.status()["env"]["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
        multiply(engine, run, options.instances)
        print(f"{len(run.tasks):,} task instances, {options.database}", file=sys.stderr)
        measured = measure(engine, run, options.repetitions)
    report(measured)


def multiply(engine: sa.Engine, run: Run, instances: int) -> None:
    """Insert instances of each mapped task until the run has ``instances`` in all."""
    table = sa.Table("task_instance", sa.MetaData(), autoload_with=engine)
    with engine.begin() as connection:
        patterns = connection.execute(sa.select(table).where(table.c.run_id == run.run_id)).mappings().all()
        each = instances // len(patterns)
        for pattern in patterns:
            connection.execute(table.insert(), list(_copies(pattern, each)))


def _copies(pattern: Any, each: int) -> Iterator[dict[str, Any]]:
    alike = {name: value for name, value in pattern.items() if value is not None}
    for map_index in range(1, each):
        later = timedelta(milliseconds=map_index)
        yield {
            **alike,
            "id": uuid.uuid4().hex if isinstance(alike["id"], str) else uuid.uuid4(),
            "map_index": map_index,
            **{name: alike[name] + later for name in MOMENTS if isinstance(alike.get(name), datetime)},
        }


def measure(engine: sa.Engine, run: Run, repetitions: int) -> dict[str, float]:
    """Return the median seconds of each way to get the frame; the ways alternate."""
    query = sa.text(f"SELECT {COLUMNS} FROM task_instance WHERE dag_id = :dag_id AND run_id = :run_id")
    ids = {"dag_id": run.dag_id, "run_id": run.run_id}

    def read_sql() -> pd.DataFrame:
        with engine.connect() as connection:
            return pd.read_sql(
                query, connection, params=ids, parse_dates={name: {"utc": True} for name in MOMENTS}
            )

    ways: dict[str, Callable[[], pd.DataFrame]] = {
        "run.tasks": lambda: run.tasks,
        "run.tasks, Arrow types": lambda: run.frame("tasks", dtype_backend="pyarrow"),
        "pandas.read_sql": read_sql,
    }
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(repetitions + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            frame = way()
            took = time.perf_counter() - began
            assert len(frame) == len(ways["run.tasks"]()) if repetition == 0 else True
            if repetition:
                samples[name].append(took)
    return {name: statistics.median(taken) for name, taken in samples.items()}


def report(measured: dict[str, float]) -> None:
    """Print the medians, and their ratios to `pandas.read_sql`."""
    reference = measured["pandas.read_sql"]
    for name, seconds in measured.items():
        print(f"{name:24} {seconds:6.3f} s   {seconds / reference:4.2f} × pandas.read_sql")
    print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f}, pandas {pd.__version__}, {datetime.now():%Y-%m-%d}"
    )


if __name__ == "__main__":
    main()
