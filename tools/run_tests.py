"""Run the layers of the tests that start processes, one after the other, and print the time that each took.

``make test`` runs it after ``make check``. ``--layer`` selects layers, and options after ``--`` go to pytest:

    python tools/run_tests.py --layer system -- --durations=20
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
        The number of tests that run at a time. Many tests wait, for a timer of Temporal or a heartbeat, so that two
        cores are enough for three of them.
    budget
        Seconds that the layer may take on two cores before its line in the summary says that it took too long.
    """

    name: str
    paths: tuple[str, ...]
    workers: int
    budget: float


# These start all processes of an Airflow, or a JupyterLab: two at a time keep two cores busy.
_WHOLE_AIRFLOW = (
    "tests/integration/client/test_rest.py",
    "tests/integration/stack/test_ui_stack.py",
    "tests/integration/airflow_plugin",
    "tests/docs/test_binder.py",
    "tests/docs/test_notebooks.py",
)
LAYERS = (
    Layer("stack", ("tests/compatibility", "tests/integration", "tests/docs"), 3, 20 * 60.0),
    # The stack with a UI, whose tests run one after the other, has to start early: otherwise it ends last, alone.
    Layer("system", (*_WHOLE_AIRFLOW, "tests/production"), 2, 15 * 60.0),
    # Playwright leaves an event loop running in the thread of the tests, so these get a pytest of their own.
    Layer("browser", ("tests/browser",), 0, 5 * 60.0),
)


def main() -> int:
    """Run the layers; return 0 if all tests passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layer", choices=[layer.name for layer in LAYERS], action="append")
    parser.add_argument("options", nargs="*", help="options for pytest, after --")
    arguments = parser.parse_args()
    exit_code, summary = 0, []
    for layer in LAYERS:
        if arguments.layer and layer.name not in arguments.layer:
            continue
        busy, begun = busy_seconds(), time.monotonic()
        code = subprocess.run(command(layer, arguments.options), cwd=ROOT, check=False).returncode
        seconds = time.monotonic() - begun
        used = (busy_seconds() - busy) / (seconds * (os.cpu_count() or 1))
        late = f", over its budget of {layer.budget:.0f} s" if seconds > layer.budget else ""
        state = "passed" if code == 0 else f"failed with exit code {code}"
        summary.append(f"{layer.name}: {state} after {seconds:.0f} s, processors busy {used:.0%}{late}")
        exit_code = exit_code or code
    print("\n".join(["", *summary]))
    return exit_code


def command(layer: Layer, options: list[str]) -> list[str]:
    """Return the command that runs a layer without the tests that are in another layer."""
    others = [path for other in LAYERS for path in other.paths if other is not layer]
    return [
        sys.executable,
        "-m",
        "pytest",
        *(("--no-loadscope-reorder", "-n", str(layer.workers)) if layer.workers else ()),
        *(f"--ignore={path}" for path in others if path not in layer.paths),
        *options,
        *layer.paths,
    ]


def busy_seconds() -> float:
    """Return for how long the processors have been busy since the machine started; 0 on systems without /proc."""
    try:
        line = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, *_ = map(int, line.split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
