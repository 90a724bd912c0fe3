"""Runs DAG files on the embedded stack, through the public API, and returns what came of them."""

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
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.errors import TemporalAirflowError
from tests.oracle.catalog import POOLS, Case, rename_choices
from tests.oracle.result import Source, key_of, read_result

if TYPE_CHECKING:
    from temporal_airflow_nb import LocalStack, Run

CALLBACK_PATIENCE = 15.0


def run_here(stack: LocalStack, case: Case, folder: Path, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Run all DAGs of a file at once on a stack.

    Parameters
    ----------
    stack
        A running stack.
    case
        The DAG file.
    folder
        Where its tasks may write.
    recorded
        The native results, which say how long callbacks that outlive a run are waited for.

    Returns
    -------
    dict
        Result by DAG id; ``{"error": message}`` where a run couldn't be started or didn't end.
    """
    results: dict[str, Any] = {}
    runs: dict[str, Run] = {}
    run_id = f"oracle-run-{uuid.uuid4().hex[:8]}"
    deadline = time.monotonic() + case.timeout
    for dag_id in recorded:
        conf = {**case.conf, "effects": str(folder / dag_id)}
        try:
            runs[dag_id] = stack.run(case.path, dag_id=dag_id, conf=conf, run_id=run_id)
        except TemporalAirflowError as error:
            results[dag_id] = {"error": f"{type(error).__name__}: {error}"}
    for dag_id, run in runs.items():
        try:
            run.wait(timeout=max(1.0, deadline - time.monotonic()))
        except TemporalAirflowError as error:
            results[dag_id] = {"error": f"{type(error).__name__}: {error}", "tasks": _states(run)}
            continue
        effects = folder / dag_id
        _wait_for_effects(effects, len(recorded[dag_id]["effects"]))
        result = read_result(
            source_of(stack, case, folder),
            dag_id,
            run_id,
            effects=effects,
            ordered=dag_id in case.ordered,
            logs=case.logs,
        )
        if untruths := disagreements(stack, run):
            result["public API"] = untruths
        results[dag_id] = rename_choices(case, result)
    return results


def source_of(stack: LocalStack, case: Case, folder: Path) -> Source:
    """Return where a stack's runs of a file are read from."""
    home = Path(stack.status()["env"]["AIRFLOW_HOME"])
    places = {str(home): "airflow_home", str(case.folder): "dags", str(folder): "effects"}
    return Source(home / "airflow.db", home / "logs", places)


def create_pools(stack: LocalStack) -> None:
    """Create the pools that the DAGs name, with Airflow's own command line."""
    for pool, slots in POOLS.items():
        subprocess.run(
            [sys.executable, "-m", "airflow", "pools", "set", pool, str(slots), "for the oracle"],
            env=_environment(stack),
            check=True,
            capture_output=True,
        )


def disagreements(stack: LocalStack, run: Run) -> list[str]:
    """Return where ``run.state``, ``run.tasks`` and ``run.xcoms`` don't say what the database says."""
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
    # A value that isn't plain is stored in an envelope, and shown without it.
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


def _states(run: Run) -> dict[str, Any]:
    return {key_of(row.task_id, row.map_index): {"state": row.state} for row in run.tasks.itertuples()}


def _wait_for_effects(effects: Path, lines: int) -> None:
    deadline = time.monotonic() + CALLBACK_PATIENCE
    while lines and time.monotonic() < deadline:
        if effects.exists() and len(effects.read_text(encoding="utf-8").splitlines()) >= lines:
            return
        time.sleep(0.1)


def _environment(stack: LocalStack) -> dict[str, str]:
    return {**os.environ, **stack.status()["env"]}
