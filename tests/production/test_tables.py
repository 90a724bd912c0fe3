"""Airflow's database commands create, repair and drop the tables of this package."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sqlalchemy import inspect, text

from tests.production.cluster import Cluster

TABLES = {
    "temporal_airflow_run",
    "temporal_airflow_outbox",
    "temporal_airflow_worker",
    "temporal_airflow_workflow",
    "temporal_airflow_schedule",
}

CREATE = """
import sys
from sqlalchemy import create_engine
from temporal_airflow_nb.orchestration.outbox.tables import create_tables
with create_engine(sys.argv[1]).connect() as connection:
    connection.rollback()
    print("ready", flush=True)
    sys.stdin.read()
    with connection.begin():
        create_tables(connection)
"""


@pytest.fixture(params=["sqlite", "postgres"])
def airflow(request, tmp_path):
    """Return an Airflow with an empty database, without running services."""
    database = request.getfixturevalue("postgres").new_database() if request.param == "postgres" else None
    cluster = Cluster(tmp_path, database_url=database)
    cluster.write_config()
    return cluster


def tables(airflow) -> set[str]:
    return {name for name in inspect(airflow.engine).get_table_names() if name.startswith("temporal_")}


def exit_code(airflow, *arguments: str) -> int:
    command = [sys.executable, "-m", "airflow", *arguments]
    return subprocess.run(
        command, env=airflow.environment, cwd=airflow.folder, capture_output=True, check=False
    ).returncode


@pytest.mark.timeout(600)
def test_database_commands_create_repair_and_drop_the_tables(airflow):
    check = ("db", "check-migrations", "--migration-wait-timeout", "1")
    airflow.airflow("db", "migrate")
    assert tables(airflow) >= TABLES
    with airflow.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO temporal_airflow_run (dag_id, run_id, created_at) VALUES ('d', 'r', CURRENT_TIMESTAMP)"
            )
        )
        connection.execute(text("DROP TABLE temporal_airflow_workflow"))
        connection.execute(text("ALTER TABLE temporal_airflow_outbox DROP COLUMN task_id"))
    assert exit_code(airflow, *check) == 1
    airflow.airflow("db", "migrate")
    assert tables(airflow) >= TABLES
    assert exit_code(airflow, *check) == 0
    assert airflow.query("SELECT dag_id FROM temporal_airflow_run") == [{"dag_id": "d"}]

    airflow.airflow("db", "reset", "--yes", "--skip-init")
    assert tables(airflow) == set()
    airflow.airflow("db", "migrate")
    assert tables(airflow) >= TABLES


def test_several_processes_can_create_the_tables_at_once(airflow):
    command = [sys.executable, "-c", CREATE, airflow.database_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    creators = [subprocess.Popen(command, env=airflow.environment, text=True, **pipes) for _ in range(4)]
    for creator in creators:
        assert creator.stdout.readline() == "ready\n"
    for creator in creators:
        creator.stdin.close()
        creator.stdin = None
    errors = [creator.communicate()[1] for creator in creators]
    assert [creator.returncode for creator in creators] == [0] * 4, "\n".join(errors)
    assert tables(airflow) >= TABLES
