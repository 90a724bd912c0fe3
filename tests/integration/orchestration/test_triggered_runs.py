"""Runs that tasks and assets trigger: of DAGs in other files, of paused DAGs, of watched assets."""

from __future__ import annotations

import sqlite3
import textwrap
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from temporal_airflow_nb.tasks.database import after_commit
from tests.support.waiting import until


def runs_of(stack, dag_id):
    return stack.client.list_runs(dag_id, limit=10)


def states_of(stack, dag_id):
    return [run["state"] for run in runs_of(stack, dag_id)]


@pytest.fixture
def write(tmp_path):
    def write(name, source):
        path = tmp_path / name
        path.write_text(textwrap.dedent(source))
        return path

    return write


def test_a_triggered_dag_is_found_in_another_file_of_the_folder(stack, write):
    write("broken.py", "raise RuntimeError('names in_another_file too')")
    write(
        "its_target.py",
        """
        from airflow.providers.standard.operators.empty import EmptyOperator
        from airflow.sdk import DAG

        with DAG("in_another_file", schedule=None):
            EmptyOperator(task_id="one")
        """,
    )
    path = write(
        "its_trigger.py",
        """
        from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
        from airflow.sdk import DAG

        with DAG("triggers_another_file", schedule=None):
            TriggerDagRunOperator(
                task_id="trigger", trigger_dag_id="in_another_file", wait_for_completion=True, poke_interval=1
            )
        """,
    )
    assert stack.run(path).wait(timeout=60) == "success"
    assert states_of(stack, "in_another_file") == ["success"]


def test_a_triggered_run_belongs_to_the_same_user(stack, write, tmp_path):
    go = tmp_path / "go"
    path = write(
        "of_a_user.py",
        f"""
        from airflow.providers.standard.operators.empty import EmptyOperator
        from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
        from airflow.providers.standard.sensors.bash import BashSensor
        from airflow.sdk import DAG

        with DAG("of_the_same_user", schedule=None):
            EmptyOperator(task_id="one")

        with DAG("of_a_user", schedule=None):
            BashSensor(
                task_id="wait", bash_command="test -e {go}", poke_interval=0.2
            ) >> TriggerDagRunOperator(task_id="trigger", trigger_dag_id="of_the_same_user")
        """,
    )
    run = stack.run(path, dag_id="of_a_user")
    database = Path(stack.status()["env"]["AIRFLOW_HOME"]) / "airflow.db"
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.execute(
            "UPDATE dag_run SET triggering_user_name = 'ann' WHERE run_id = ? AND dag_id = 'of_a_user'",
            (run.run_id,),
        )
    go.touch()
    assert run.wait(timeout=60) == "success"
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        users = connection.execute(
            "SELECT triggering_user_name FROM dag_run WHERE dag_id = 'of_the_same_user'"
        ).fetchall()
    assert users == [("ann",)]


def test_only_the_run_of_a_paused_dag_waits(stack, write):
    path = write(
        "paused.py",
        """
        from airflow.providers.standard.operators.empty import EmptyOperator
        from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
        from airflow.sdk import DAG, Asset

        with DAG("stays_paused", schedule=[Asset("new-runs://paused")], is_paused_upon_creation=True):
            EmptyOperator(task_id="one")

        with DAG("is_not_paused", schedule=None):
            EmptyOperator(task_id="one")

        with DAG("triggers_both", schedule=None):
            first = TriggerDagRunOperator(task_id="first", trigger_dag_id="stays_paused")
            event = EmptyOperator(task_id="event", outlets=[Asset("new-runs://paused")])
            second = TriggerDagRunOperator(
                task_id="second", trigger_dag_id="is_not_paused", wait_for_completion=True, poke_interval=1
            )
            first >> event >> second
        """,
    )
    assert stack.run(path, dag_id="triggers_both").wait(timeout=60) == "success"
    assert states_of(stack, "is_not_paused") == ["success"]
    assert states_of(stack, "stays_paused") == ["queued"]


def test_each_change_of_a_watched_asset_starts_a_run(stack, write, tmp_path):
    flag = tmp_path / "flag"
    path = write(
        "watched.py",
        f"""
        from airflow.providers.standard.operators.empty import EmptyOperator
        from airflow.providers.standard.triggers.file import FileDeleteTrigger
        from airflow.sdk import DAG, Asset, AssetWatcher

        trigger = FileDeleteTrigger({str(flag)!r}, poke_interval=0.2)
        flagged = Asset("flagged", watchers=[AssetWatcher(name="flag", trigger=trigger)])

        with DAG("runs_when_flagged", schedule=[flagged]):
            EmptyOperator(task_id="one")
        """,
    )
    assert stack.run(path).wait(timeout=60) == "success"
    for times in (2, 3):
        flag.touch()
        until(lambda times=times: states_of(stack, "runs_when_flagged") == ["success"] * times, timeout=60)
        assert not flag.exists()


def test_a_listener_is_called_after_the_outermost_commit():
    calls = []
    with Session(create_engine("sqlite://")) as session:
        session.execute(text("CREATE TABLE t (n INTEGER)"))
        after_commit(session, lambda: calls.append("committed"))
        with session.begin_nested():
            session.execute(text("INSERT INTO t VALUES (1)"))
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            _ = 1 / 0
        assert calls == []
        session.commit()
        assert calls == ["committed"]
        session.execute(text("INSERT INTO t VALUES (2)"))
        session.commit()
        assert calls == ["committed"]


def test_a_listener_is_not_called_after_a_rollback():
    calls = []
    with Session(create_engine("sqlite://")) as session:
        session.execute(text("CREATE TABLE t (n INTEGER)"))
        after_commit(session, lambda: calls.append("committed"))
        session.rollback()
        session.execute(text("SELECT 1"))
        session.commit()
    assert calls == []
