"""Runs DAG files on native Airflow and returns the results."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from benchmarks.native_airflow import NativeAirflow, remove_folder
from tests.compatibility.oracle.catalog import CASES, ENVIRONMENT, NOW, PLUGINS, POOLS, Case
from tests.compatibility.oracle.drive import Side, run_case
from tests.compatibility.oracle.result import Source
from tests.compatibility.oracle.scenarios import Scene, Task, play

# Not at midnight, so that it can't be mistaken for the end of a data interval.
LOGICAL_DATE = "2024-03-05T06:07:08.901234+00:00"
# Attempts for runs in which a task failed only because this machine was too busy.
ONCE_MORE = ["2024-03-05T07:08:09.012345+00:00", "2024-03-05T08:09:10.123456+00:00"]
NOT_RECORDED = re.compile(r"Setting the task to failed\..* ti_id=([0-9a-f-]{36})")
RUN_ID = "oracle-run-natively"
QUIET = 4.0
AT_ONCE = 4

SETTINGS = {
    # A DAG is unpaused when its case begins, because the files share assets and the machine.
    "core": {"parallelism": "16", "dags_are_paused_at_creation": "True"},
    "workers": {
        # A task that must stop learns it at its next heartbeat.
        "min_heartbeat_interval": "1",
        # On a busy machine, a task would fail because the API server is slow.
        "execution_api_timeout": "60",
        "execution_api_retries": "10",
    },
    # An embedded stack has no base address for links.
    "api": {"base_url": ""},
    "scheduler": {"scheduler_idle_sleep_time": "0.1", "use_job_schedule": "True"},
    # Parse one file at a time, the newest first: the order decides which of two conflicting assets is active.
    "dag_processor": {"min_file_process_interval": "3600", "parsing_processes": "1"},
}


def run_natively(cases: Sequence[Case], *, keep: bool = False) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Run all DAGs of these files on native Airflow: several examples in parallel, the other files one by one.

    Each folder of plugins gets its own Airflow.

    Parameters
    ----------
    cases
        The DAG files.
    keep
        Keep the folder with the database and the logs, and print its path.

    Yields
    ------
    tuple
        The case, and its results by DAG id.
    """
    for plugins in dict.fromkeys(case.plugins for case in cases):
        yield from _run_on_one([case for case in cases if case.plugins == plugins], plugins, keep)


def _run_on_one(cases: Sequence[Case], plugins: str, keep: bool) -> Iterator[tuple[Case, dict[str, Any]]]:
    home = Path(tempfile.mkdtemp(prefix="native-airflow-"))
    shutil.copytree(
        PLUGINS / plugins, home / "airflow" / "plugins", ignore=shutil.ignore_patterns("__pycache__")
    )
    earlier = {name for case in cases for name in case.after}
    known = {**CASES, **{case.name: case for case in cases}}
    needed = [case for case in known.values() if case in cases or case.name in earlier]
    try:
        with NativeAirflow(
            home / "airflow",
            _copy(needed, home / "bundles"),
            settings=SETTINGS,
            environment=ENVIRONMENT,
            triggerer=True,
        ) as native:
            (home / "pools.json").write_text(json.dumps(POOLS), encoding="utf-8")
            native.cli("pools", "import", str(home / "pools.json"))
            yield from _run_all(native, needed, home, chosen={case.name for case in cases})
    finally:
        if keep:
            print(f"kept: {home}")
        else:
            remove_folder(home)


def _run_all(
    native: NativeAirflow, cases: Sequence[Case], home: Path, chosen: set[str]
) -> Iterator[tuple[Case, dict[str, Any]]]:
    done = {case.name: threading.Event() for case in cases}

    def run(case: Case) -> dict[str, Any]:
        for name in case.after:
            done[name].wait()
        try:
            return _run(native, case, home)
        finally:
            done[case.name].set()

    for group, at_once in (
        ([c for c in cases if c.package], AT_ONCE),
        ([c for c in cases if not c.package], 1),
    ):
        with ThreadPoolExecutor(at_once) as threads:
            running = {threads.submit(run, case): case for case in sorted(group, key=lambda c: bool(c.after))}
            for future in as_completed(running):
                if running[future].name in chosen:
                    yield running[future], future.result()


def _copy(cases: Sequence[Case], into: Path) -> dict[str, Path]:
    """Copy the files and their neighbours, but no other DAG files, into one bundle for each package."""
    bundles = {}
    for age, case in enumerate(cases):
        bundle = into / _bundle_name(case)
        if not bundle.exists():
            shutil.copytree(case.folder, bundle, ignore=shutil.ignore_patterns("__pycache__"))
            for file in bundle.glob("*.py"):
                file.unlink()
        copy = shutil.copy2(case.path, bundle)
        os.utime(copy, (time.time() - age,) * 2)
        bundles[bundle.name] = bundle
    return bundles


def _bundle_name(case: Case) -> str:
    return (case.package or "tests").replace(".", "_")


class NativeSide(Side):
    """A case on native Airflow."""

    # The scheduler marks a task as failed if it is queued again before the scheduler knows that the task waits.
    considers = 8.0

    def __init__(self, native: NativeAirflow, case: Case, home: Path, date: str | None = None) -> None:
        self.native = native
        self.case = case
        self.date = date or case.logical_date or LOGICAL_DATE
        self.run_id = f"{RUN_ID}-{date}" if date else RUN_ID
        self.effects = home / "effects" / f"{case.name}{date or ''}"
        self.effects.mkdir(parents=True)
        self.bundle = home / "bundles" / _bundle_name(case)
        self.source = Source(
            native.database,
            native.logs,
            {
                str(native.home): "airflow_home",
                str(native.home / "tmp"): "tmp",
                str(self.bundle): "dags",
                str(self.effects): "effects",
            },
        )

    def dag_ids(self, case: Case) -> list[str]:
        """Return the DAGs of a file."""
        return self.native.dag_ids(self.bundle.parent / _bundle_name(case) / f"{case.name}.py")

    def start(self, dag_id: str, conf: Mapping[str, Any], number: int) -> None:
        """Trigger the run through the REST API."""
        first = datetime.now(tz=timezone.utc) if self.date == NOW else datetime.fromisoformat(self.date)
        date = first + timedelta(days=number - 1)
        self.native.trigger(dag_id, self.id_of(number), logical_date=date.isoformat(), conf=conf)

    def play(self, dag_ids: Iterable[str]) -> dict[str, str]:
        """Act through the REST API, like the UI's buttons."""
        file = self.bundle / f"{self.case.name}.py"
        return play(
            [
                NativeScene(self.native, dag_id, RUN_ID, self.effects / dag_id, self.native.database, file)
                for dag_id in dag_ids
            ]
        )

    def wait(self, dag_id: str, timeout: float) -> None:
        """Wait for the end of a run."""
        self.native.wait([(dag_id, self.run_id)], timeout=timeout)

    def answer(self, dag_id: str, task_id: str, map_index: int, answer: Mapping[str, Any]) -> None:
        """Answer through the REST API, like the UI."""
        self.native.answer(dag_id, self.run_id, task_id, map_index, answer)

    def settle(self, step: int, count: Callable[[], tuple[int, int]]) -> None:
        """Wait for the runs that other runs caused, and for the callbacks that the DAG processor runs after a run."""
        quiet_since, known = time.time(), -1
        while time.time() - quiet_since < QUIET:
            time.sleep(0.2)
            self.native.check_services()
            number, unfinished = count()
            with self.native.connect() as connection:
                (waiting,) = connection.execute(
                    "SELECT count(*) FROM callback"
                    " WHERE state IS NULL OR state IN ('pending', 'queued', 'running')"
                ).fetchone()
            changes = [file.stat().st_mtime for file in self.effects.iterdir() if file.is_file()]
            busy = waiting or unfinished or number != known
            known = number
            quiet_since = max([quiet_since, *changes, time.time() if busy else 0])

    def disturbed(self, dag_ids: Iterable[str]) -> list[str]:
        """Return the DAGs with a task that failed because its process couldn't start it or report its end."""
        log = (self.native.home / "api-server.log").read_text(encoding="utf-8", errors="replace")
        with self.native.connect() as connection:
            found = connection.execute(
                "SELECT dag_id, run_id FROM log"
                " WHERE event = 'state mismatch' AND extra LIKE '%state attribute is queued%'"
            ).fetchall()
            for ti_id in NOT_RECORDED.findall(log):
                found += connection.execute(
                    "SELECT dag_id, run_id FROM task_instance WHERE id = ? UNION"
                    " SELECT dag_id, run_id FROM task_instance_history WHERE task_instance_id = ?",
                    2 * [ti_id.replace("-", "")],
                ).fetchall()
        return sorted({dag_id for dag_id, run_id in found if run_id == self.run_id} & {*dag_ids})

    def switch_on(self, dag_ids: list[str]) -> None:
        """Unpause DAGs without creating runs by their time schedules."""
        places = ", ".join("?" for _ in dag_ids)
        with contextlib.closing(sqlite3.connect(self.native.database, timeout=60)) as connection, connection:
            connection.execute(
                f"UPDATE dag SET is_paused = 0, next_dagrun_create_after = NULL WHERE dag_id IN ({places})",
                dag_ids,
            )


class NativeScene(Scene):
    """A run on native Airflow; actions on it go through the REST API, like the UI's buttons."""

    def __init__(self, native: NativeAirflow, *run: Any) -> None:
        super().__init__(*run)
        self.native = native

    def start(self) -> None:
        """Start the run."""
        conf = {"effects": str(self.effects)}
        self.native.trigger(self.dag_id, self.run_id, logical_date=LOGICAL_DATE, conf=conf)

    def clear(
        self,
        *tasks: Task,
        downstream: bool = False,
        upstream: bool = False,
        only_failed: bool = False,
        latest: bool | None = None,
    ) -> None:
        """Clear task instances, or the whole run if no task is named."""
        body: dict[str, Any] = {"dry_run": False, "only_failed": only_failed, "run_on_latest_version": latest}
        if not tasks:
            self.native.change("POST", self.dag_id, f"dagRuns/{self.run_id}/clear", body)
            return
        body |= {"dag_run_id": self.run_id, "task_ids": tasks}
        body |= {"include_downstream": downstream, "include_upstream": upstream}
        self.native.change("POST", self.dag_id, "clearTaskInstances", body)

    def mark(
        self,
        state: str,
        task_id: str | None = None,
        *,
        map_index: int | None = None,
        downstream: bool = False,
        upstream: bool = False,
    ) -> None:
        """Mark a task, or the whole run if no task is named."""
        path = f"dagRuns/{self.run_id}"
        if task_id is None:
            self.native.change("PATCH", self.dag_id, path, {"state": state})
            return
        path += f"/taskInstances/{task_id}" + ("" if map_index is None else f"/{map_index}")
        body = {"new_state": state, "include_downstream": downstream, "include_upstream": upstream}
        self.native.change("PATCH", self.dag_id, path, body)

    def reload(self) -> None:
        """Make Airflow read the DAG file again."""
        self.native.cli("dags", "reserialize", "--bundle-name", "tests")


def _run(native: NativeAirflow, case: Case, home: Path) -> dict[str, Any]:
    side = NativeSide(native, case, home)
    own = side.dag_ids(case)
    of_earlier = [dag_id for name in case.after for dag_id in side.dag_ids(CASES[name])]
    side.switch_on(own)
    started = time.monotonic()
    results = run_case(side, own, of_earlier)
    for date in ONCE_MORE if case.brief else ():
        if disturbed := side.disturbed(results):
            print(f"{case.name}: once more {' '.join(disturbed)}", flush=True)
            side = NativeSide(native, case, home, date)
            results |= run_case(side, disturbed)
    print(f"{case.name}: {len(own)} DAGs in {time.monotonic() - started:.1f} s", flush=True)
    return results
