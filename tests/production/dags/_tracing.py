"""Tasks that record their start and their processes; some wait at a gate that a test opens."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from urllib.parse import quote

import psutil
from airflow.sdk import BaseOperator, get_current_context, task

TRACES = Path(os.environ["TRACES"])


def trace() -> None:
    """Write a line about this try of this task."""
    ti = get_current_context()["ti"]
    path = TRACES / ti.dag_id / quote(ti.run_id, safe="")
    path.parent.mkdir(parents=True, exist_ok=True)
    process = psutil.Process()
    line = {
        "process": {"pid": process.pid, "create_time": process.create_time()},
        "task_id": ti.task_id,
        "map_index": ti.map_index,
        "try_number": ti.try_number,
        "at": time.time(),
        "ancestors": [parent.pid for parent in process.parents()],
    }
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def is_open() -> bool:
    """Return whether the gate of this DAG, or of this run of it, is open."""
    ti = get_current_context()["ti"]
    gates = [TRACES / ti.dag_id / name for name in ("open", quote(f"{ti.run_id}.open", safe=""))]
    return any(gate.exists() for gate in gates)


def traced(task_id: str, **options):
    """Return a task that only records that it ran."""
    return task(task_id=task_id, **options)(trace)()


class Gate(BaseOperator):
    """Records that it runs, then waits at the gate."""

    killed = False

    def execute(self, context):
        trace()
        while not is_open():
            if self.killed:
                raise RuntimeError("killed")
            time.sleep(0.05)

    def on_kill(self):
        self.killed = True


def gated(task_id: str, **options):
    """Return a task that records that it runs, then waits at the gate."""
    return Gate(task_id=task_id, **options)
