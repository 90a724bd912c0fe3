"""Measures the embedded stack and native Airflow on this machine."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.processes import memory_bytes
from benchmarks.sides import WORKLOADS, Embedded, Native, Sample, Side
from benchmarks.table import as_json, text_table, update_readme

HERE = Path(__file__).parent
README = HERE / "README.md"
RESULTS = HERE / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    workloads = [workload for workload in WORKLOADS if workload.name in (options.only or [workload.name])]
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    settings = {"scheduler": {"scheduler_idle_sleep_time": str(options.native_idle_sleep)}}
    sides: list[Side] = []
    with contextlib.ExitStack() as exits:
        exits.callback(shutil.rmtree, home, ignore_errors=True)
        if options.side in ("native", "both"):
            sides.append(Native(home / "native", settings))
        if options.side in ("embedded", "both"):
            sides.append(Embedded(home / "embedded"))
        for side in sides:
            _print_progress(f"starting {side.name} …")
            exits.callback(side.stop)
            side.start()
        outcome: dict[str, Any] = {
            "machine": _machine(),
            "native_idle_sleep": options.native_idle_sleep,
            "repetitions": options.repetitions,
            "idle_memory": {},
            "workloads": {},
        }
        for workload in workloads:
            samples: dict[str, list[Sample]] = {side.name: [] for side in sides}
            peaks = {}
            for side in sides:
                _print_progress(f"{workload.name}: warming {side.name} …")
                peaks[side.name] = side.peak_memory(workload)
            for repetition in range(options.repetitions):
                for side in sides:
                    sample = side.measure(workload)
                    samples[side.name].append(sample)
                    _print_progress(
                        f"{workload.name}: {side.name} {repetition + 1}/{options.repetitions}"
                        f" {sample.wall:.2f} s, {sample.cpu:.1f} s CPU"
                    )
            outcome["workloads"][workload.name] = {
                side.name: {
                    "wall": round(statistics.median(sample.wall for sample in samples[side.name]), 3),
                    "cpu": round(statistics.median(sample.cpu for sample in samples[side.name]), 3),
                    "peak_memory": peaks[side.name],
                    "samples": [sample.as_json() for sample in samples[side.name]],
                }
                for side in sides
            }
        outcome["idle_memory"] = {side.name: memory_bytes(side.processes()) for side in sides}
    if options.output == "json":
        target = options.to or RESULTS / f"{datetime.now(tz=timezone.utc):%Y%m%dT%H%M%S}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(as_json(outcome), encoding="utf-8")
        _print_progress(f"written: {target}")
    print(text_table(outcome))
    if options.update_readme:
        update_readme(README, outcome)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=["both", "native", "embedded"], default="both")
    parser.add_argument("--only", nargs="+", choices=[workload.name for workload in WORKLOADS])
    parser.add_argument(
        "--repetitions", type=int, default=3, help="timed repetitions, after one for the warm-up"
    )
    parser.add_argument(
        "--native-idle-sleep",
        type=float,
        default=1.0,
        help="native Airflow's scheduler_idle_sleep_time; 1 second is Airflow's default",
    )
    parser.add_argument("--output", choices=["text", "json"], default="text")
    parser.add_argument("--to", type=Path, help="the JSON file; default: a new one in benchmarks/results")
    parser.add_argument(
        "--update-readme", action="store_true", help="put the table into benchmarks/README.md"
    )
    return parser


def _machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "airflow": version("apache-airflow-core"),
        "load": round(os.getloadavg()[0], 2),
        "date": f"{datetime.now(tz=timezone.utc):%Y-%m-%d}",
    }


def _print_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
