"""The whole stack: Airflow's own processes beside the worker, on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from urllib.parse import quote

import psutil
import pytest

from temporal_airflow_nb import LocalStack
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.stack import processes, state_folder
from temporal_airflow_nb.stack.services import airflow_services, database, ports, temporal_server
from tests.support.airflow_api import AirflowApi
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)

TIMEOUT = 120
DAG = """
from airflow.sdk import DAG, task

with DAG({dag_id!r}, schedule={schedule!r}, start_date=__import__("datetime").datetime(2026, 1, 1)):

    @task
    def numbers():
        return [1, 2]

    @task
    def double(number):
        return number * 2

    double.expand(number=numbers())
"""


def command(*arguments, **options):
    line = [sys.executable, "-m", "temporal_airflow_nb.cli.main", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, **options)


def rows(stack):
    return {row["name"]: row for row in stack.status()["services"]}


def write_dag(folder, dag_id, schedule=None):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{dag_id}.py"
    path.write_text(DAG.format(dag_id=dag_id, schedule=schedule))
    return path


def describe_workflow(stack, dag_id, run_id):
    done = subprocess.run(
        [
            *(temporal_server.find_program(), "workflow", "describe"),
            *("--workflow-id", workflow_id(dag_id, run_id), "-o", "json"),
        ],
        env={**os.environ, **stack.status()["env"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["workflowExecutionInfo"]


def assert_executed_by_temporal(stack, dag_id, run_id):
    assert describe_workflow(stack, dag_id, run_id)["status"] == "WORKFLOW_EXECUTION_STATUS_COMPLETED"
    api = AirflowApi(stack.links["airflow"])
    states = {key: ti["state"] for key, ti in api.tasks(dag_id, run_id).items()}
    assert states == {"numbers": "success", "double[0]": "success", "double[1]": "success"}


def family(pid):
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def gone(family):
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


def kill_and_await(stack, name):
    """Kill a service and wait for its restart; return the processes of the killed one."""
    killed = family(rows(stack)[name]["pid"])
    killed[0].send_signal(signal.SIGKILL)
    until(lambda: rows(stack)[name]["pid"] not in (None, killed[0].pid), f"a new {name}", TIMEOUT)
    until(
        lambda: {row["state"] for row in rows(stack).values()} == {"running"},
        "everything is running",
        TIMEOUT,
    )
    return killed


@pytest.fixture(scope="module")
def dag_id(ui_stack, airflow_api, tmp_path_factory):
    """A DAG that the UI shows, unpaused."""
    folder = tmp_path_factory.mktemp("dags")
    write_dag(folder, "doubles")
    ui_stack.register_folder(folder)
    assert airflow_api.dag_appears("doubles")["is_paused"] is True
    airflow_api.unpause("doubles")
    return "doubles"


def test_the_services_are_up_and_on_loopback(ui_stack, airflow_api):
    status = rows(ui_stack)
    assert list(status) == ["temporal", "database", "worker", "api-server", "scheduler", "dag-processor"]
    assert {row["state"] for row in status.values()} == {"running"}
    assert status["database"]["address"] == f"sqlite:///{ui_stack.home}/airflow/airflow.db"
    assert f"http://{status['api-server']['address']}" == ui_stack.links["airflow"]
    for row in status.values():
        for process in family(row["pid"]) if row["pid"] else []:
            for connection in process.net_connections("inet"):
                assert connection.status != psutil.CONN_LISTEN or ip_address(connection.laddr.ip).is_loopback
    health = airflow_api.get("monitor/health")
    assert {key: value["status"] for key, value in health.items()} == {
        "metadatabase": "healthy",
        "scheduler": "healthy",
        "dag_processor": "healthy",
        "triggerer": None,
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
@pytest.mark.parametrize(("user", "status"), [(0, 200), (12345, 403)])
def test_another_user_of_the_machine_is_refused(ui_stack, user, status):
    host, port = rows(ui_stack)["api-server"]["address"].split(":")
    request = r"GET /api/v2/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    script = f"exec 3<>/dev/tcp/{host}/{port}; printf '{request}' >&3; head -1 <&3"
    asked = subprocess.run(["/bin/bash", "-c", script], user=user, cwd="/", capture_output=True, text=True)
    assert asked.stdout.startswith(f"HTTP/1.1 {status} "), asked


def test_temporal_executes_a_run_of_the_api(ui_stack, airflow_api, dag_id):
    run_id = airflow_api.trigger(dag_id)
    assert airflow_api.wait(dag_id, run_id) == "success"
    assert_executed_by_temporal(ui_stack, dag_id, run_id)


def test_temporal_executes_a_run_of_airflows_command_line(ui_stack, airflow_api, dag_id):
    env = {**os.environ, **ui_stack.status()["env"]}
    airflow = [sys.executable, "-m", "airflow", "dags", "trigger", dag_id, "--run-id", "by-command"]
    done = subprocess.run(airflow, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert airflow_api.wait(dag_id, "by-command") == "success"
    assert_executed_by_temporal(ui_stack, dag_id, "by-command")


def test_a_file_that_is_run_appears_and_its_neighbours_do_not(ui_stack, airflow_api, tmp_path):
    path = write_dag(tmp_path / "project", "of_a_file")
    (tmp_path / "project" / "script.py").write_text(
        "# an airflow dag, for all that one can tell\nopen(__file__ + '.imported', 'w')\n"
    )
    done = command("run", path, "--home", ui_stack.home, "--output", "json")
    assert done.returncode == 0, done.stderr
    run_id = json.loads(done.stdout)["run_id"]
    shown = ui_stack.client.get_run("of_a_file", run_id)["links"]["airflow"]
    assert shown == f"{ui_stack.links['airflow']}/dags/of_a_file/runs/{quote(run_id, safe='')}"
    assert airflow_api.get("dags/of_a_file")["is_paused"] is False
    assert_executed_by_temporal(ui_stack, "of_a_file", run_id)
    assert not (tmp_path / "project" / "script.py.imported").exists()


def test_a_folder_named_while_the_stack_runs_is_watched(ui_stack, airflow_api, dag_id, tmp_path):
    before = rows(ui_stack)
    write_dag(tmp_path / "late", "late_one")
    done = command("up", "--ui", "--home", ui_stack.home, "--dags", tmp_path / "late")
    assert done.returncode == 0, done.stderr
    assert "This stack was running already." in done.stdout
    airflow_api.dag_appears("late_one")
    write_dag(tmp_path / "late" / "below", "later_one")
    airflow_api.dag_appears("later_one")
    after = rows(ui_stack)
    changed = {name for name in before if before[name]["pid"] != after[name]["pid"]}
    assert changed == {"dag-processor"}
    ui_stack.register_folder(tmp_path / "late")
    assert rows(ui_stack)["dag-processor"]["pid"] == after["dag-processor"]["pid"]
    # A file below a watched folder belongs to its bundle, whoever runs it.
    ui_stack.run(tmp_path / "late" / "below" / "later_one.py").wait(timeout=TIMEOUT)
    bundle = airflow_api.get("dags/late_one")["bundle_name"]
    assert airflow_api.get("dags/later_one")["bundle_name"] == bundle
    assert airflow_api.get(f"dags/{dag_id}")["is_stale"] is False


def test_a_schedule_is_followed_once_the_dag_is_unpaused(ui_stack, airflow_api, dag_id, tmp_path):
    write_dag(tmp_path / "cron", "scheduled", schedule="@daily")
    ui_stack.register_folder(tmp_path / "cron")
    assert airflow_api.dag_appears("scheduled")["is_paused"] is True
    assert airflow_api.get("dags/scheduled/dagRuns")["total_entries"] == 0
    airflow_api.unpause("scheduled")
    until(lambda: airflow_api.get("dags/scheduled/dagRuns")["total_entries"], "a scheduled run", TIMEOUT)
    run = airflow_api.get("dags/scheduled/dagRuns")["dag_runs"][0]
    assert run["run_type"] == "scheduled"
    assert airflow_api.wait("scheduled", run["dag_run_id"]) == "success"
    assert_executed_by_temporal(ui_stack, "scheduled", run["dag_run_id"])


EVENTS = """
import time
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.triggers.file import FileDeleteTrigger
from airflow.sdk import DAG, Asset, AssetWatcher, DeadlineAlert, DeadlineReference, task
from airflow.sdk.definitions.callback import AsyncCallback

MISSED = Path({missed!r})

watcher = AssetWatcher(name="arrival", trigger=FileDeleteTrigger(filepath={arrived!r}, poke_interval=0.5))
with DAG("of_an_arrival", schedule=[Asset("arrivals", watchers=[watcher])]):

    @task
    def read():
        pass

    read()

late = AsyncCallback("late_runs.note", kwargs={{"path": str(MISSED)}})
with DAG(
    "late",
    schedule=None,
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=timedelta(seconds=1), callback=late
    ),
):

    @task
    def wait():
        deadline = time.monotonic() + 120
        while not MISSED.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    wait()
"""


def test_the_worker_runs_what_a_triggerer_would(ui_stack, airflow_api, tmp_path):
    missed, arrived, folder = (tmp_path / name for name in ("missed", "arrived", "events"))
    (ui_stack.home / "airflow" / "plugins" / "late_runs.py").write_text(
        "from pathlib import Path\n\nasync def note(context, path):\n    Path(path).write_text('late')\n"
    )
    folder.mkdir()
    (folder / "events.py").write_text(EVENTS.format(missed=str(missed), arrived=str(arrived)))
    ui_stack.register_folder(folder)
    for dag_id in ("of_an_arrival", "late"):
        airflow_api.dag_appears(dag_id)
        airflow_api.unpause(dag_id)
    run_id = airflow_api.trigger("late")
    assert airflow_api.wait("late", run_id, timeout=TIMEOUT) == "success"
    arrived.touch()
    path = "dags/of_an_arrival/dagRuns"
    until(lambda: airflow_api.get(path)["total_entries"], "a run of the asset", TIMEOUT)
    run = airflow_api.get(path)["dag_runs"][0]
    assert run["run_type"] == "asset_triggered"
    assert airflow_api.wait("of_an_arrival", run["dag_run_id"]) == "success"
    assert describe_workflow(ui_stack, "of_an_arrival", run["dag_run_id"])


@pytest.mark.parametrize("name", airflow_services.NAMES)
def test_a_killed_service_restarts(ui_stack, airflow_api, dag_id, name):
    before = rows(ui_stack)
    killed = kill_and_await(ui_stack, name)
    assert gone(killed)
    after = rows(ui_stack)
    assert {n for n in before if before[n]["pid"] != after[n]["pid"]} == {name}
    run_id = airflow_api.trigger(dag_id)
    assert airflow_api.wait(dag_id, run_id) == "success"


def test_every_start_attaches_to_the_same_stack(ui_stack):
    with LocalStack(ui_stack.home) as without_ui, LocalStack(ui_stack.home, ui=True) as other:
        assert (without_ui.started_here, other.started_here) == (False, False)
    assert ui_stack.is_running
    done = command("up", "--ui", "--db", "postgres", "--home", ui_stack.home)
    assert done.returncode == 2
    assert "was created with SQLite, and PostgreSQL is asked for" in done.stderr


def test_a_stack_without_the_ui_does_not_get_it(stack):
    assert "AIRFLOW__CORE__ORCHESTRATOR" not in stack.status()["env"]
    done = command("up", "--ui", "--home", stack.home)
    assert done.returncode == 2
    assert "runs without Airflow's UI.\n  End it (`temporal-airflow down`, or" in done.stderr


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        env = {**os.environ, "TEMPORAL_AIRFLOW_API_PORT": str(port)}
        done = command("up", "--ui", "--detach", "--home", tmp_path / "home", env=env)
    assert done.returncode == 3
    assert f"Port {port}, asked for by TEMPORAL_AIRFLOW_API_PORT, is taken" in done.stderr


@pytest.mark.parametrize(
    ("answer", "unhealthy"),
    [
        ({"scheduler": {"status": "healthy"}, "dag_processor": {"status": "unhealthy"}}, {"dag-processor"}),
        ({"scheduler": {"status": "unhealthy"}, "dag_processor": {"status": "healthy"}}, {"scheduler"}),
        (None, {"api-server"}),
    ],
)
def test_a_service_without_a_heartbeat_is_unhealthy(answer, unhealthy):
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(500 if answer is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        found = [{"name": name, "state": "running"} for name in (*airflow_services.NAMES, "worker")]
        airflow_services.mark_unhealthy(found, server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert {row["name"] for row in found if row["state"] == "unhealthy"} == unhealthy


@pytest.fixture(scope="module")
def postgres_home(tmp_path_factory):
    """Return the state folder of a stack on PostgreSQL; afterwards end the stack."""
    home = tmp_path_factory.mktemp("on postgres") / "home"
    yield home
    command("down", "--home", home)
    assert_nothing_left(home)


def assert_nothing_left(home):
    stack = state_folder.read_stack(home)
    until(lambda: not list(processes.find_all(stack["id"])), "the end of every process", TIMEOUT)
    for port in stack["ports"].values():
        until(lambda port=port: ports.is_free(port), f"port {port}", TIMEOUT)


@contextlib.contextmanager
def up(home, *options):
    done = command("up", "--ui", "--detach", "--home", home, *options)
    assert done.returncode == 0, done.stderr
    stack = LocalStack(home)
    try:
        yield stack, done.stdout
    finally:
        down = command("down", "--home", home)
        assert (down.returncode, down.stderr) == (0, "")


def test_a_stack_on_postgres(postgres_home, tmp_path):
    home = postgres_home
    write_dag(tmp_path / "dags", "doubles")
    with up(home, "--db", "postgres", "--dags", tmp_path / "dags") as (stack, printed):
        status = rows(stack)
        assert {row["state"] for row in status.values()} == {"running"}
        assert status["database"]["address"] == (
            f"postgresql://127.0.0.1:{state_folder.read_stack(home)['ports']['database']}/airflow"
        )
        assert status["database"]["pid"]
        for name, row in status.items():
            assert re.search(rf"^ {name} +running", printed, re.MULTILINE), printed
            assert (row["address"] or "") in printed
        assert f"Airflow UI: {stack.links['airflow']}\n" in printed
        assert f"Temporal UI: {stack.links['temporal']}\n" in printed
        assert database.password(home) not in printed
        api = AirflowApi(stack.links["airflow"])
        api.dag_appears("doubles")
        api.unpause("doubles")
        run_id = api.trigger("doubles")
        assert api.wait("doubles", run_id) == "success"
        assert_executed_by_temporal(stack, "doubles", run_id)
        killed = kill_and_await(stack, "database")
        until(lambda: gone(killed), "the end of the killed server's processes", TIMEOUT)
        later = api.trigger("doubles")
        assert api.wait("doubles", later) == "success"
    assert_nothing_left(home)
    refused = command("up", "--db", "sqlite", "--home", home)
    assert refused.returncode == 2
    assert "was created with PostgreSQL, and SQLite is asked for" in refused.stderr
    with up(home) as (stack, _):
        assert AirflowApi(stack.links["airflow"]).run("doubles", run_id)["state"] == "success"
        manager = psutil.Process(state_folder.read_stack(home)[state_folder.MANAGER]["pid"])
        everything = [process for row in rows(stack).values() for process in family(row["pid"])]
        manager.send_signal(signal.SIGKILL)
        until(lambda: gone(everything), "the end of everything", TIMEOUT)
    assert_nothing_left(home)


def test_an_incomplete_postgres_folder_is_created_again(tmp_path):
    home = tmp_path / "home"
    folder = database.postgres_folder(home)
    folder.mkdir(parents=True)
    (folder / "PG_VERSION").write_text("18\n")
    with LocalStack(home, db="postgres") as stack:
        path = write_dag(tmp_path / "dags", "doubles")
        assert stack.run(path).wait(timeout=TIMEOUT) == "success"
        assert list(rows(stack)) == ["temporal", "database", "worker"]
    shutil.rmtree(home)
