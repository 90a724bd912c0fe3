"""Runs DAG files on the embedded stack, through the public API, and returns the results."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.compatibility.oracle.catalog import CASES, NOW, POOLS, Case
from tests.compatibility.oracle.drive import Side, expected_runs, run_case
from tests.compatibility.oracle.embedded_scene import play_embedded
from tests.compatibility.oracle.result import Source, key_of

if TYPE_CHECKING:
    from temporal_airflow_nb import LocalStack, Run

TIMEOUT = 15.0


class EmbeddedSide(Side):
    """A case on the embedded stack.

    Parameters
    ----------
    stack
        A running stack.
    case
        The DAG file.
    folder
        Where its tasks may write.
    recorded
        The native results. They show which callbacks and runs continue after a run, to wait for them.
    """

    def __init__(self, stack: LocalStack, case: Case, folder: Path, recorded: Mapping[str, Any]) -> None:
        self.stack = stack
        self.case = case
        self.recorded = recorded
        self.effects = folder
        self.run_id = f"oracle-run-{uuid.uuid4().hex[:8]}"
        self.runs: dict[str, Run] = {}
        home = Path(stack.status()["env"]["AIRFLOW_HOME"])
        places = {str(home): "airflow_home", str(case.folder): "dags", str(folder): "effects"}
        self.source = Source(home / "airflow.db", home / "logs", places)

    def start(self, dag_id: str, conf: Mapping[str, Any], number: int) -> None:
        """Start the run through the public API."""
        date = None
        if self.case.logical_date not in (None, NOW):
            date = datetime.fromisoformat(self.case.logical_date) + timedelta(days=number - 1)
        run = self.stack.run(
            self.case.path, dag_id=dag_id, conf=conf, run_id=self.id_of(number), logical_date=date
        )
        self.runs.setdefault(dag_id, run)

    def play(self, dag_ids: Iterable[str]) -> dict[str, str]:
        """Act through the public API."""
        runs, failed = play_embedded(self.stack, self.case, self.effects, dag_ids, self.run_id)
        self.runs |= runs
        return failed

    def wait(self, dag_id: str, timeout: float) -> None:
        """Wait for the end of a run."""
        self.runs[dag_id].wait(timeout=timeout)

    def answer(self, dag_id: str, task_id: str, map_index: int, answer: Mapping[str, Any]) -> None:
        """Answer through the public API."""
        self.runs[dag_id].respond(
            task_id, answer["chosen_options"], answer.get("params_input"), map_index=map_index
        )

    def settle(self, step: int, count: Callable[[], tuple[int, int]]) -> None:
        """Wait for the runs that other runs cause on native Airflow, and for callbacks that end after a run."""
        expected = expected_runs(self.recorded, step)
        deadline = time.monotonic() + self.case.timeout
        give_up = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            number, unfinished = count()
            if not unfinished and (number >= expected or time.monotonic() > give_up):
                break
            time.sleep(0.1)
        for dag_id in self.runs:
            _wait_for_effects(self.effects / dag_id, len(self.recorded[dag_id].get("effects", ())))

    def finish(self, dag_id: str, result: dict[str, Any]) -> dict[str, Any]:
        """Add the differences between the public API and the database."""
        if untruths := disagreements(self.stack, self.runs[dag_id]):
            result["public API"] = untruths
        return result


def run_embedded(stack: LocalStack, case: Case, folder: Path, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Run the DAGs of a file on a stack; return the results by DAG id."""
    own = [dag_id for dag_id in recorded if dag_id not in _of_earlier(case)]
    side = EmbeddedSide(stack, case, folder, recorded)
    return run_case(side, own, set(recorded) - set(own))


def _of_earlier(case: Case) -> set[str]:
    return {dag_id for name in case.after for dag_id in CASES[name].recorded()}


def create_pools(stack: LocalStack, file: Path) -> None:
    """Create the pools that the DAGs name, with Airflow's own command line; ``file`` is written."""
    file.write_text(json.dumps(POOLS), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "airflow", "pools", "import", str(file)],
        env=_environment(stack),
        check=True,
        capture_output=True,
    )


def disagreements(stack: LocalStack, run: Run) -> list[str]:
    """Return the differences between the database and ``run.state``, ``run.tasks`` and ``run.xcoms``."""
    path = Path(stack.status()["env"]["AIRFLOW_HOME"]) / "airflow.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        chosen = "WHERE dag_id = ? AND run_id = ?"
        parameters = (run.dag_id, run.run_id)
        (state,) = database.execute(f"SELECT state FROM dag_run {chosen}", parameters).fetchone()
        tasks = {
            key_of(task_id, map_index): rest
            for task_id, map_index, *rest in database.execute(
                "SELECT task_id, map_index, state, try_number, coalesce(nullif(custom_operator_name, ''), operator)"
                f" FROM task_instance {chosen}",
                parameters,
            )
        }
        xcoms = {
            f"{key_of(task_id, map_index)} / {key}": json.loads(value) if isinstance(value, str) else value
            for task_id, map_index, key, value in database.execute(
                f"SELECT task_id, map_index, key, value FROM xcom {chosen}", parameters
            )
        }
    frame = run.tasks
    shown_tasks = {
        key_of(row.task_id, row.map_index): [
            None if _missing(row.state) else row.state,
            row.try_number,
            None if _missing(row.operator) else row.operator,
        ]
        for row in frame.itertuples()
    }
    shown_xcoms = {
        f"{key_of(row.task_id, row.map_index)} / {row.key}": row.value for row in run.xcoms.itertuples()
    }
    found = [] if run.state == state else [f"state is {run.state!r}, in the database {state!r}"]
    found += _unequal("task", tasks, shown_tasks)
    # A value that isn't a JSON type is stored in an envelope, and shown without it.
    plain = {name for name, value in xcoms.items() if "__" not in json.dumps(value)}
    found += [f"xcom {name} is missing" for name in sorted(xcoms.keys() - shown_xcoms.keys())]
    found += _unequal(
        "xcom",
        {name: xcoms[name] for name in plain & shown_xcoms.keys()},
        {name: value for name, value in shown_xcoms.items() if name in plain or name not in xcoms},
    )
    return found


def _unequal(kind: str, stored: Mapping[str, Any], shown: Mapping[str, Any]) -> list[str]:
    return [
        f"{kind} {name} is {str(shown.get(name))[:200]}, in the database {str(stored.get(name))[:200]}"
        for name in sorted({*stored, *shown})
        if stored.get(name) != shown.get(name)
    ]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _wait_for_effects(effects: Path, lines: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while lines and time.monotonic() < deadline:
        if effects.exists() and len(effects.read_text(encoding="utf-8").splitlines()) >= lines:
            return
        time.sleep(0.1)


def _environment(stack: LocalStack) -> dict[str, str]:
    return {**os.environ, **stack.status()["env"]}
