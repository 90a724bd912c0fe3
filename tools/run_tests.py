"""Runs the layers of the tests that start processes, two lanes side by side, and prints what each took.

``make test`` runs it after ``make check``. Many tests wait: for a timer of Temporal, a heartbeat, a page. One lane has
the tests on embedded stacks. The other has the tests that start a whole Airflow or a browser: more than two of these at
a time would be too slow on two cores. Each layer's output goes to ``build/tests``, and is printed when the layer ends.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "build" / "tests"
_REPORT_INTERVAL = 60.0


@dataclass(frozen=True)
class Layer:
    """Tests that run in one call of pytest.

    Parameters
    ----------
    name
        The layer's name.
    paths
        Files and folders, relative to the root of the project.
    workers
        How many tests run at a time.
    budget
        Seconds that the layer may take on two cores before its line in the summary has a warning.
    """

    name: str
    paths: tuple[str, ...]
    workers: int
    budget: float


# These start an Airflow with all its processes, or a JupyterLab.
_WHOLE_AIRFLOW = (
    "tests/integration/airflow_plugin",
    "tests/integration/client/test_rest.py",
    "tests/integration/stack/test_ui_stack.py",
    "tests/docs/test_binder.py",
    "tests/docs/test_notebooks.py",
)
LANES = (
    (Layer("stack", ("tests/compatibility", "tests/integration", "tests/docs"), 3, 20 * 60.0),),
    (
        Layer("system", ("tests/production", *_WHOLE_AIRFLOW), 2, 15 * 60.0),
        # Playwright leaves an event loop running in the thread of the tests, hence a call of pytest of its own.
        Layer("browser", ("tests/browser",), 0, 5 * 60.0),
    ),
)


@dataclass
class Outcome:
    """How a layer ended."""

    layer: Layer
    exit_code: int
    seconds: float

    def __str__(self) -> str:
        state = "passed" if self.exit_code == 0 else f"failed with exit code {self.exit_code}"
        late = f", over its budget of {self.layer.budget:.0f} s" if self.seconds > self.layer.budget else ""
        return f"{self.layer.name}: {state} after {self.seconds:.0f} s{late}"


def main() -> int:
    """Run all layers; return 0 if all tests passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layer", choices=[layer.name for lane in LANES for layer in lane], action="append")
    parser.add_argument("options", nargs="*", help="options for pytest, after --")
    arguments = parser.parse_args()
    outcomes: list[Outcome] = []
    printing, interrupted = threading.Lock(), threading.Event()

    def run_lane(lane: tuple[Layer, ...]) -> None:
        for layer in lane:
            if interrupted.is_set() or (arguments.layer and layer.name not in arguments.layer):
                continue
            log = LOGS / f"{layer.name}.log"
            outcome = run(layer, log, arguments.options)
            with printing:
                print(f"\n===== {layer.name} =====\n{log.read_text(errors='replace')}{outcome}", flush=True)
            outcomes.append(outcome)

    LOGS.mkdir(parents=True, exist_ok=True)
    for old in LOGS.glob("*.log"):
        old.unlink()
    busy, begun = busy_seconds(), time.monotonic()
    next_report = begun + _REPORT_INTERVAL
    lanes = [threading.Thread(target=run_lane, args=(lane,)) for lane in LANES]
    for lane in lanes:
        lane.start()
    while any(lane.is_alive() for lane in lanes):
        try:
            time.sleep(1)
        except KeyboardInterrupt:
            # pytest was interrupted too: each layer ends what it has started.
            interrupted.set()
        if time.monotonic() >= next_report:
            next_report += _REPORT_INTERVAL
            with printing:
                print(f"{time.monotonic() - begun:5.0f} s: {progress()}", flush=True)
    seconds = time.monotonic() - begun
    print("\n" + "\n".join(map(str, outcomes)))
    used = (busy_seconds() - busy) / (seconds * (os.cpu_count() or 1))
    print(f"all layers: {seconds:.0f} s, processors busy {used:.0%}")
    return max((outcome.exit_code for outcome in outcomes), default=0)


def run(layer: Layer, log: Path, options: list[str]) -> Outcome:
    """Run a layer's tests; their output goes to a file."""
    others = [path for lane in LANES for other in lane for path in other.paths if other is not layer]
    ignored = [f"--ignore={path}" for path in others if path not in layer.paths]
    side_by_side = ["--no-loadscope-reorder", "-n", str(layer.workers)] if layer.workers else []
    command = [sys.executable, "-m", "pytest", *side_by_side, *ignored, *options, *layer.paths]
    begun = time.monotonic()
    with log.open("w") as file:
        done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False)
    return Outcome(layer, done.returncode, time.monotonic() - begun)


def progress() -> str:
    """Return the end of each layer's output."""
    lines = {
        log.stem: log.read_text(errors="replace").rstrip().rpartition("\n")[2] for log in LOGS.glob("*.log")
    }
    return ", ".join(f"{name} {line[-9:].strip()}" for name, line in sorted(lines.items()))


def busy_seconds() -> float:
    """Return for how long the processors have been busy since the machine started; 0 where Linux doesn't tell."""
    try:
        user, nice, system, _, _, irq, softirq, *_ = map(
            int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        )
    except OSError:
        return 0.0
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
