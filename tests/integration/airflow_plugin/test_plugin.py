"""The hooks in processes of a stock Airflow, with nothing but its database."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from temporal_airflow_nb.config.environment import ORCHESTRATOR

AIRFLOW = str(Path(sys.executable).with_name("airflow"))


class Installation:
    """An ``AIRFLOW_HOME``, and the processes that run with it."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.environment = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "1",
            **environment,
        }

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
            env={**self.environment, **environment},
        )

    def python(self, code: str, **environment: str) -> str:
        result = self.run(sys.executable, "-c", f"import airflow\n{code}", **environment)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout.strip().splitlines()[-1]


ON = {"AIRFLOW__CORE__ORCHESTRATOR": ORCHESTRATOR}

RUNS = """
from airflow import settings
from airflow.models.dagrun import DagRun
from datetime import datetime, timezone
from sqlalchemy import text

def add(session, run_id, state="queued"):
    run = DagRun(dag_id="etl", run_id=run_id, run_type="manual", run_after=datetime.now(timezone.utc), state=state)
    session.add(run)
    session.flush()
    return run

def outbox():
    with settings.NonScopedSession() as session:
        found = session.execute(text("SELECT run_id, kind FROM temporal_airflow_outbox ORDER BY id"))
        rows = [tuple(row) for row in found]
        session.execute(text("DELETE FROM temporal_airflow_outbox"))
        session.commit()
        return rows

def managed():
    with settings.NonScopedSession() as session:
        return sorted(session.scalars(text("SELECT run_id FROM temporal_airflow_run")))
"""


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """Return an installation with a migrated database, to which each test adds its own runs."""
    installation = Installation(tmp_path_factory.mktemp("airflow"))
    migrated = installation.run(AIRFLOW, "db", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    return installation


def test_no_hook_is_installed_if_temporal_is_off(installation):
    code = """
from sqlalchemy import event
from sqlalchemy.orm import Session
import airflow.plugins_manager as plugins
import airflow.jobs.scheduler_job_runner
plugins.ensure_plugins_loaded()
from temporal_airflow_nb.airflow_plugin import scheduler_filters, session_listeners
print(event.contains(Session, "after_flush", session_listeners._after_flush), scheduler_filters._installed)
"""
    assert installation.python(code) == "False False"
    assert installation.python(code, AIRFLOW__CORE__ORCHESTRATOR="DefaultOrchestrator") == "False False"
    assert installation.python(code, **ON) == "True True"


def test_a_scheduler_with_temporal_off_still_skips_its_unfinished_runs(tmp_path, installation):
    home = tmp_path / "airflow"
    shutil.copytree(installation.home, home)
    other = Installation(home)
    code = f"""{RUNS}
from temporal_airflow_nb.orchestration.outbox import managed_runs, tables
with settings.NonScopedSession() as session:
    add(session, "in_flight", "running")
    managed_runs.assign("etl", "in_flight", session)
    session.commit()
import airflow.plugins_manager as plugins
import airflow.jobs.scheduler_job_runner
plugins.ensure_plugins_loaded()
from temporal_airflow_nb.airflow_plugin import scheduler_filters
with settings.NonScopedSession() as session:
    add(session, "new").state = "running"
    session.flush()
    session.commit()
print(scheduler_filters._installed, managed())
"""
    assert other.python(code) == "True ['in_flight']"


def test_the_selftest_passes_and_leaves_no_rows(installation):
    code = f"""{RUNS}
from temporal_airflow_nb.airflow_plugin import selftest
selftest.run()
with settings.NonScopedSession() as session:
    print(session.scalar(text("SELECT count(*) FROM dag_run WHERE dag_id LIKE '%selftest%'")), outbox(), managed())
"""
    assert installation.python(code, **ON) == "0 [] []"


BROKEN = {
    "another search for runs": """
def search(cls, session):
    return session.execute(select(DagRun, DagRun.id).where(DagRun.state == "running")).scalars()
DagRun.get_running_dag_runs_to_examine = classmethod(search)
""",
    "another search for tasks": """
def search(self, max_tis, session):
    found = select(TaskInstance, TaskInstance.id).where(TaskInstance.state == "scheduled")
    return session.scalars(found.order_by(TaskInstance.run_id).limit(max_tis)).all()
SchedulerJobRunner._executable_task_instances_to_queued = search
""",
    "another signature": """
def start(self, session, limit):
    pass
SchedulerJobRunner._start_queued_dagruns = start
""",
}


@pytest.mark.parametrize("change", BROKEN)
def test_a_scheduler_that_would_run_tasks_twice_does_not_start(tmp_path, installation, change):
    """A plugin changes Airflow as another version might."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "other_version.py").write_text(
        "from airflow.jobs.scheduler_job_runner import SchedulerJobRunner\n"
        "from airflow.models.dagrun import DagRun\n"
        "from airflow.models.taskinstance import TaskInstance\n"
        "from sqlalchemy import select\n" + BROKEN[change]
    )
    result = installation.run(
        AIRFLOW, "scheduler", "-n", "1", **ON, AIRFLOW__CORE__PLUGINS_FOLDER=str(plugins)
    )
    assert result.returncode == 2
    assert "Error: " in result.stderr
    assert "DefaultOrchestrator" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"AIRFLOW__CORE__ORCHESTRATOR": "temporal_airflow_nb.Orchestrator"}, "is not known"),
        ({**ON, "AIRFLOW__TEMPORAL_AIRFLOW__DAGS": "etl_*,,"}, "an empty pattern"),
    ],
    ids=["unknown orchestrator", "malformed pattern"],
)
def test_a_scheduler_with_invalid_settings_does_not_start(installation, settings, message):
    result = installation.run(AIRFLOW, "scheduler", "-n", "1", **settings)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_scheduler_without_the_tables_names_the_remedy(tmp_path, installation):
    home = tmp_path / "airflow"
    shutil.copytree(installation.home, home)
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        for (table,) in database.execute(
            "SELECT name FROM sqlite_master WHERE name LIKE 'temporal_%'"
        ).fetchall():
            database.execute(f"DROP TABLE {table}")
        database.commit()
    other = Installation(home)
    code = f"""{RUNS}
with settings.NonScopedSession() as session:
    add(session, "early")
    session.commit()
print("created")
"""
    assert other.python(code, **ON) == "created"
    result = other.run(AIRFLOW, "scheduler", "-n", "1", **ON)
    assert result.returncode == 2
    assert "airflow db migrate" in result.stderr


def test_a_run_is_taken_over_in_the_transaction_that_starts_it(installation):
    code = f"""{RUNS}
import airflow.plugins_manager as plugins
import airflow.jobs.scheduler_job_runner
plugins.ensure_plugins_loaded()
found = []
with settings.NonScopedSession() as session:
    run = add(session, "taken")
    session.commit()
    found.append(outbox())
    run.state = "running"
    session.flush()
    session.rollback()
    found += [outbox(), managed()]
    run.state = "running"
    session.commit()
    found += [outbox(), managed()]
    run.clear_number += 1
    session.commit()
    found.append(outbox())
    session.delete(run)
    session.commit()
    found += [outbox(), managed()]
print(found)
"""
    assert installation.python(code, **ON) == str(
        [
            [("taken", "queued")],
            *([], []),
            *([("taken", "start")], ["taken"]),
            [("taken", "resync")],
            *([("taken", "resync")], []),
        ]
    )


def test_a_run_does_not_start_in_a_process_without_filters(installation):
    code = f"""{RUNS}
from temporal_airflow_nb.errors import UnsupportedVersionError
with settings.NonScopedSession() as session:
    run = add(session, "refused")
    run.state = "running"
    try:
        session.flush()
    except UnsupportedVersionError as error:
        print("refused:", error.message)
"""
    assert installation.python(code, **ON).startswith("refused: A run was started by a process")


def test_runs_of_other_dags_are_not_taken_over(installation):
    code = f"""{RUNS}
import airflow.plugins_manager as plugins
import airflow.jobs.scheduler_job_runner
plugins.ensure_plugins_loaded()
with settings.NonScopedSession() as session:
    run = add(session, "native")
    session.commit()
    run.state = "running"
    session.commit()
    run.state = "success"
    session.commit()
print(outbox(), managed())
"""
    assert installation.python(code, **ON, AIRFLOW__TEMPORAL_AIRFLOW__DAGS="*, !etl") == "[] []"


def test_bulk_statements_on_runs_are_reported(installation):
    code = f"""{RUNS}
from sqlalchemy import delete, update
from temporal_airflow_nb.orchestration.outbox import managed_runs, tables

with settings.NonScopedSession() as session:
    for run_id in ("one", "two", "other"):
        add(session, run_id)
    for run_id in ("one", "two"):
        managed_runs.assign("etl", run_id, session)
        workflow = dict.fromkeys(("workflow_id", "temporal_run_id", "namespace", "task_queue"), "x")
        session.execute(tables.workflows.insert().values(
            dag_id="etl", run_id=run_id, started_at=datetime.now(timezone.utc), **workflow
        ))
    session.commit()
    outbox()
    session.execute(update(DagRun).where(DagRun.run_id.in_(["two", "other"])).values(state="failed"))
    session.commit()
    found = [outbox()]
    session.execute(delete(DagRun).where(DagRun.dag_id == "etl"))
    session.commit()
    found += [sorted(outbox()), managed(), session.execute(tables.workflows.select()).all()]
print(found)
"""
    assert installation.python(code, **ON) == str(
        [[("two", "resync")], [("one", "resync"), ("two", "resync")], [], []]
    )
