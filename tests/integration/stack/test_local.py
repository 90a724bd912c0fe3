"""The whole embedded stack: Temporal's server, the real worker with Airflow in it, and the command line."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys

import psutil
import pytest

from temporal_airflow_nb import LocalStack
from temporal_airflow_nb.client.gateway import GatewayClient
from temporal_airflow_nb.config.airflow_version import check_airflow
from temporal_airflow_nb.errors import InvalidConfError, InvalidInputError
from temporal_airflow_nb.stack import processes, state_folder
from temporal_airflow_nb.stack.services import airflow_config
from tests.support.paths import COMPATIBILITY_DAGS
from tests.support.waiting import until

SMALL = COMPATIBILITY_DAGS / "small.py"


def command(*arguments, **options):
    command = [sys.executable, "-m", "temporal_airflow_nb.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


def row(stack, name):
    return next(row for row in stack.status()["services"] if row["name"] == name)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder that the tests of this module share: only the first start migrates the database."""
    home = tmp_path_factory.mktemp("whole stack") / "home"
    yield home
    with contextlib.suppress(KeyError):
        assert not list(processes.find_all(state_folder.read_stack(home)["id"]))


def test_a_fresh_and_a_used_folder_work(home):
    for _ in range(2):
        with LocalStack(home) as stack:
            answer = stack.client.ping()
            assert answer["airflow"].startswith("3.3.")
            assert answer["pid"] == row(stack, "worker")["pid"]
            assert {r["state"] for r in stack.status()["services"]} == {"running"}
            stack_id = state_folder.read_stack(home)["id"]
        assert not list(processes.find_all(stack_id))


def test_a_folder_of_an_older_version_is_migrated(home):
    with contextlib.closing(sqlite3.connect(home / "airflow" / "airflow.db")) as database:
        database.execute("DROP TABLE temporal_airflow_schedule")
        database.execute("ALTER TABLE temporal_airflow_run DROP COLUMN on_worker_lost")
        database.commit()
    (home / "airflow" / "migrated").write_text("3.3.0")
    assert not airflow_config.is_migrated(home, check_airflow())
    with LocalStack(home) as stack:
        assert stack.run(SMALL, dag_id="one_task").wait(timeout=60) == "success"
        assert airflow_config.is_migrated(home, check_airflow())


@pytest.mark.parametrize(
    ("token", "origin", "status"),
    [
        (None, None, 401),
        ("Bearer 0", None, 401),
        ("Bearer \xe9", None, 401),
        ("Bearer 0", "http://elsewhere", 403),
    ],
)
def test_the_gateway_refuses_a_request_without_the_token_and_does_not_read_it(stack, token, origin, status):
    headers = {"Content-Type": "text/plain", "Content-Length": "1000000000"}
    headers |= {"Origin": origin} if origin else {}
    connection = http.client.HTTPConnection(stack.client.address, timeout=10)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/v1/ping")
        for name, value in {**headers, **({"Authorization": token} if token else {})}.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == status
        assert not [name for name, _ in answer.getheaders() if name.startswith("access-control")]
    with pytest.raises(InvalidInputError, match="belongs to another user"):
        GatewayClient(stack.client.address, "nonsense").ping()


def test_a_killed_worker_restarts_without_its_old_zygotes(home):
    with LocalStack(home) as stack:
        worker = psutil.Process(row(stack, "worker")["pid"])
        family = [worker, *worker.children(recursive=True)]
        assert len(family) > 1
        worker.send_signal(signal.SIGKILL)
        answer = stack.client.ping()
        assert answer["pid"] not in {process.pid for process in family}
        _, alive = psutil.wait_procs(family, timeout=1)
        assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_nothing_is_left_when_the_owner_is_killed(home):
    code = (
        "import sys, time, temporal_airflow_nb as ta;"
        "ta.LocalStack(sys.argv[1]).start(); print('up', flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "up\n"
    stack_id = state_folder.read_stack(home)["id"]
    assert len(list(processes.find_all(stack_id))) >= 4
    owner.kill()
    owner.communicate()
    until(lambda: not list(processes.find_all(stack_id)), timeout=15)


def test_two_concurrent_starts_give_one_stack(home):
    starts = [
        subprocess.Popen(
            [sys.executable, "-m", "temporal_airflow_nb.cli.main", "up", "--detach", "--home", str(home)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        outputs = [start.communicate()[0] for start in starts]
        assert [start.returncode for start in starts] == [0, 0]
        assert sum("was running already" in text for text in outputs) == 1
        stack_id = state_folder.read_stack(home)["id"]
        managers = [
            p for p in processes.find_all(stack_id) if "stack.manager.manager" in " ".join(p.cmdline())
        ]
        # the manager and its watchdog
        assert len(managers) == 2
    finally:
        down = command("down", "--home", str(home))
    assert (down.returncode, down.stdout) == (0, "The stack is down.\n")
    assert not list(processes.find_all(stack_id))


def test_airflows_own_tools_see_the_stacks_database(home):
    with LocalStack(home) as stack:
        env = {**os.environ, **stack.status()["env"]}
        code = (
            "from airflow import settings; settings.initialize(); engine = settings.engine;"
            "print(engine.url.database, engine.dialect.has_table(engine.connect(), 'dag'))"
        )
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == f"{home}/airflow/airflow.db True", done.stderr


def test_up_stays_in_the_foreground_until_interrupted(home):
    up = subprocess.Popen(
        [sys.executable, "-m", "temporal_airflow_nb.cli.main", "up", "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    while not (lines and lines[-1].startswith("Ctrl-C")):
        lines.append(up.stdout.readline())
        assert lines[-1]
    stack_id = state_folder.read_stack(home)["id"]
    status = command("status", "--home", str(home), "--output", "json")
    services = {row["name"]: row for row in json.loads(status.stdout)["services"]}
    assert list(services) == ["temporal", "database", "worker"]
    assert services["temporal"]["address"] in "".join(lines)
    exports = command("status", "--home", str(home), "--env").stdout
    assert f"export TEMPORAL_ADDRESS={services['temporal']['address']}\n" in exports
    doctor = command("doctor", "--home", str(home), "--output", "json")
    assert doctor.returncode == 0, doctor.stdout
    assert {check["state"] for check in json.loads(doctor.stdout)["checks"]} == {"ok"}
    up.send_signal(signal.SIGINT)
    _, errors = up.communicate()
    assert (up.returncode, errors) == (0, "")
    assert not list(processes.find_all(stack_id))


def test_a_further_worker_joins_and_leaves(home):
    with LocalStack(home) as stack:
        worker = subprocess.Popen(
            [sys.executable, "-m", "temporal_airflow_nb.cli.main", "worker", "--home", str(home)],
            stdout=subprocess.PIPE,
            text=True,
        )
        address = stack.status()["env"]["TEMPORAL_ADDRESS"]
        line = next(line for line in worker.stdout if line.startswith("Working"))
        assert line.startswith(f"Working for {address}, namespace default, task queue airflow-tasks, "), line
        zygotes = psutil.Process(worker.pid).children(recursive=True)
        assert zygotes
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=20)
        assert worker.returncode == 0
        assert not psutil.wait_procs(zygotes, timeout=5)[1]
        assert row(stack, "worker")["state"] == "running"


def test_a_worker_names_the_service_it_cannot_reach(home, tmp_path):
    with LocalStack(home) as stack:
        env = {**os.environ, **stack.status()["env"], "TEMPORAL_ADDRESS": "127.0.0.1:1"}
        done = command("worker", env=env)
        assert done.returncode == 3
        assert "Error: Temporal at 127.0.0.1:1 can't be reached" in done.stderr
        assert "Traceback" not in done.stderr
        done = command(
            "worker", env={**env, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/a.db"}
        )
        assert done.returncode == 2
        assert "airflow db migrate" in done.stderr


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "fast"}, InvalidInputError, "no mode 'fast'"),
        ({"conf": [1]}, InvalidConfError, "must be a mapping"),
        ({"conf": {"day": object()}}, InvalidConfError, "can't be written as JSON"),
        ({"conf": {"x": float("nan")}}, InvalidConfError, "can't be written as JSON"),
        ({"path": 3}, TypeError, "path must be a str or os.PathLike, not int"),
        ({"variables": 3}, TypeError, "variables must be a str or os.PathLike, not int"),
    ],
)
def test_a_wrong_argument_of_run_is_refused_before_anything_is_sent(stack, options, error, message):
    with pytest.raises(error, match=message):
        stack.run(**{"path": "dag.py", **options})
