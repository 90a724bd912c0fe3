"""Runs DAG files on native Airflow and returns what came of them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.native_airflow import NativeAirflow, remove_folder
from tests.oracle.catalog import ENVIRONMENT, POOLS, Case, rename_choices
from tests.oracle.result import Source, read_result

# Not on the boundary of a day, so that it can't be mistaken for the end of a data interval.
LOGICAL_DATE = "2024-03-05T06:07:08.901234+00:00"
RUN_ID = "oracle-run-natively"
QUIET = 4.0

SETTINGS = {
    "core": {"parallelism": "8"},
    "scheduler": {"scheduler_idle_sleep_time": "0.1"},
    "dag_processor": {"min_file_process_interval": "3600"},
}


def run_natively(cases: Sequence[Case], *, keep: bool = False) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Run all DAGs of these files on one native Airflow, one file after the other.

    Parameters
    ----------
    cases
        The DAG files.
    keep
        Leave the folder with the database and the logs, and say where it is.

    Yields
    ------
    tuple
        The case, and its results by DAG id.
    """
    home = Path(tempfile.mkdtemp(prefix="native-airflow-"))
    try:
        with NativeAirflow(
            home / "airflow",
            _copy(cases, home / "bundles"),
            settings=SETTINGS,
            environment=ENVIRONMENT,
            triggerer=True,
        ) as native:
            for pool, slots in POOLS.items():
                native.cli("pools", "set", pool, str(slots), "for the oracle")
            for case in cases:
                yield case, _run(native, case, home)
    finally:
        if keep:
            print(f"kept: {home}")
        else:
            remove_folder(home)


def _copy(cases: Sequence[Case], into: Path) -> dict[str, Path]:
    """Copy the files, and what lies beside them but no other DAG file, into one bundle for each package."""
    bundles = {}
    for case in cases:
        bundle = into / (case.package or "tests").replace(".", "_")
        if not bundle.exists():
            shutil.copytree(case.folder, bundle, ignore=shutil.ignore_patterns("__pycache__"))
            for file in bundle.glob("*.py"):
                file.unlink()
        shutil.copy2(case.path, bundle)
        bundles[bundle.name] = bundle
    return bundles


def _run(native: NativeAirflow, case: Case, home: Path) -> dict[str, Any]:
    bundle = home / "bundles" / (case.package or "tests").replace(".", "_")
    effects = home / "effects" / case.name
    effects.mkdir(parents=True)
    dag_ids = native.dag_ids(bundle / f"{case.name}.py")
    started = time.monotonic()
    for dag_id in dag_ids:
        conf = {**case.conf, "effects": str(effects / dag_id)}
        native.trigger(dag_id, RUN_ID, logical_date=LOGICAL_DATE, conf=conf)
    native.wait([(dag_id, RUN_ID) for dag_id in dag_ids], timeout=case.timeout)
    print(f"{case.name}: {len(dag_ids)} DAGs in {time.monotonic() - started:.1f} s", flush=True)
    _wait_for_callbacks(native, effects)
    source = Source(
        native.database,
        native.logs,
        {
            str(native.home): "airflow_home",
            str(native.home / "tmp"): "tmp",
            str(bundle): "dags",
            str(effects): "effects",
        },
    )
    return {
        dag_id: rename_choices(
            case,
            read_result(
                source,
                dag_id,
                RUN_ID,
                effects=effects / dag_id,
                ordered=dag_id in case.ordered,
                logs=case.logs,
            ),
        )
        for dag_id in dag_ids
    }


def _wait_for_callbacks(native: NativeAirflow, effects: Path) -> None:
    """Let the callbacks finish that the DAG processor runs after the end of a run."""
    quiet_since = time.time()
    while time.time() - quiet_since < QUIET:
        time.sleep(0.2)
        with native.connect() as connection:
            (waiting,) = connection.execute(
                "SELECT count(*) FROM callback WHERE state IS NULL OR state IN ('pending', 'queued', 'running')"
            ).fetchone()
        changes = [file.stat().st_mtime for file in effects.iterdir()]
        quiet_since = max([quiet_since, *changes, time.time() if waiting else 0])
