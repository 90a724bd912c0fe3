"""The stack manager and what starts it, with the real Temporal server and a stand-in for the worker."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError, UnsupportedVersionError
from temporal_airflow_nb.stack import processes, state_folder
from temporal_airflow_nb.stack.local import LocalStack
from temporal_airflow_nb.stack.services import temporal_server
from temporal_airflow_nb.stack.services.spec import Plan
from tests.support.waiting import until

wait_for = partial(until, timeout=15.0)

HERE = Path(__file__).parent
FAKE_MANAGER = HERE / "fake_manager.py"
HANDED_DOWN = "HANDED_DOWN_BY_THE_TEST"


class FakeStack(LocalStack):
    def __init__(self, home, *, behaviour=(), detach=False, linger=0.0):
        super().__init__(home, detach=detach, linger=linger)
        self.behaviour = [f"worker:{item}" for item in behaviour]

    def _manager_command(self):
        return [sys.executable, str(FAKE_MANAGER), str(self.home), *self.behaviour]


def pids_of(test_id):
    """Return the pids of all descendants of this test, found by an inherited variable."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(HANDED_DOWN) == test_id and process.pid != os.getpid():
                found.add(process.pid)
    return found


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch, request):
    test_id = f"{request.node.name}-{os.getpid()}"
    monkeypatch.setenv(HANDED_DOWN, test_id)
    yield test_id
    left = pids_of(test_id)
    try:
        deadline = time.monotonic() + 3
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = pids_of(test_id)
        assert not left, [psutil.Process(pid).cmdline() for pid in left]
    finally:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def record(home):
    return state_folder.read_stack(home)


def pid_of(home, service):
    return next((row["pid"] for row in record(home)["services"] if row["name"] == service), None)


def owner_script(home, *, detach=False, linger=0.0, behaviour=(), then="import time; time.sleep(600)"):
    """Start a process that starts the stack, prints that it has, and then runs further code."""
    code = textwrap.dedent(f"""
        import os, sys
        sys.path.insert(0, {str(HERE)!r})
        from test_manager import FakeStack
        stack = FakeStack({str(home)!r}, detach={detach}, linger={linger}, behaviour={behaviour!r}).start()
        print("started" if stack.started_here else "attached", stack.client.ping()["pid"], flush=True)
    """)
    return subprocess.Popen([sys.executable, "-c", code + then], stdout=subprocess.PIPE, text=True)


def test_a_stack_starts_answers_and_leaves_nothing(home, nothing_left):
    with FakeStack(home) as stack:
        assert stack.started_here
        assert "running" in repr(stack)
        assert stack.client.ping()["pid"] == pid_of(home, "worker")
        rows = {row["name"]: row for row in stack.status()["services"]}
        assert list(rows) == ["temporal", "database", "worker"]
        assert set(rows["temporal"]) == {"name", "state", "address", "pid"}
        assert rows["temporal"]["state"] == rows["worker"]["state"] == "running"
        assert record(home)["detached"] is False
    assert not stack.is_running
    assert "stopped" in repr(stack)
    assert [row["state"] for row in stack.status()["services"]] == ["stopped"] * 3
    assert not pids_of(nothing_left)
    with pytest.raises(ServiceUnavailableError, match="No stack runs in"):
        _ = stack.client


def test_everything_listens_on_loopback_only(home):
    with FakeStack(home):
        for service in ("temporal", "worker"):
            for connection in psutil.Process(pid_of(home, service)).net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert ip_address(connection.laddr.ip).is_loopback


def test_the_worker_gets_the_stacks_servers_and_not_the_users(home, monkeypatch):
    monkeypatch.setenv("TEMPORAL_ADDRESS", "cloud:7233")
    monkeypatch.setenv("TEMPORAL_API_KEY", "secret")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://prod")
    monkeypatch.setenv("AIRFLOW_VAR_DAY", "monday")
    with FakeStack(home) as stack:
        env = stack.client.ping()["env"]
        known = stack.status()["env"]
    for name, value in known.items():
        assert env[name] == value
    assert env["AIRFLOW_HOME"] == str(home / "airflow")
    assert env["TEMPORAL_ADDRESS"] == record(home)["temporal"]["address"]
    assert env["TEMPORAL_AIRFLOW_GATEWAY_PORT"] == record(home)["gateway"]["address"].split(":")[1]
    assert record(home)["gateway"]["token"] not in str(env), "tasks inherit the environment"
    assert env[processes.STACK_ID_VARIABLE] == record(home)["id"]
    assert env["AIRFLOW_VAR_DAY"] == "monday"
    assert "TEMPORAL_API_KEY" not in env


def test_temporals_own_tools_find_the_stack(home, monkeypatch):
    monkeypatch.setenv("TEMPORAL_API_KEY", "for another server")
    monkeypatch.setenv("TEMPORAL_PROFILE", "another")
    with FakeStack(home) as stack:
        env = {**os.environ, **stack.status()["env"]}
        program = temporal_server.find_program()

        def ask(*arguments):
            done = subprocess.run(
                [program, *arguments, "-o", "json"], env=env, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        namespace = ask("operator", "namespace", "describe", "default")
        assert namespace["config"]["workflowExecutionRetentionTtl"] == f"{temporal_server.RETENTION_SECONDS}s"
        attributes = ask("operator", "search-attribute", "list")["customAttributes"]
        assert {name: attributes[name] for name in temporal_server.SEARCH_ATTRIBUTES} == {
            "AirflowDagId": "INDEXED_VALUE_TYPE_KEYWORD",
            "AirflowRunId": "INDEXED_VALUE_TYPE_KEYWORD",
            "AirflowState": "INDEXED_VALUE_TYPE_KEYWORD",
        }
        code = (
            "import asyncio; from temporal_airflow_nb.config.temporal import connect_client;"
            "client = asyncio.run(connect_client());"
            "print(client.service_client.config.target_host, client.namespace)"
        )
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert done.stdout.split() == [record(home)["temporal"]["address"], "default"], done.stderr


def test_a_requested_namespace_is_created(home, monkeypatch):
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "etl")
    with FakeStack(home) as stack:
        env = {**os.environ, **stack.status()["env"]}
        list_attributes = [
            temporal_server.find_program(),
            "operator",
            "search-attribute",
            "list",
            "-o",
            "json",
        ]
        done = subprocess.run(list_attributes, env=env, capture_output=True, text=True, check=True)
        assert set(temporal_server.SEARCH_ATTRIBUTES) <= set(json.loads(done.stdout)["customAttributes"])
        assert stack.client.ping()["env"]["TEMPORAL_NAMESPACE"] == "etl"
    monkeypatch.delenv("TEMPORAL_NAMESPACE")
    with FakeStack(home) as stack:
        assert stack.status()["env"]["TEMPORAL_NAMESPACE"] == "etl"


def test_a_second_stack_attaches_and_leaves_the_first_running(home):
    with FakeStack(home) as first:
        with FakeStack(home) as second:
            assert not second.started_here
            assert second.client.ping()["pid"] == first.client.ping()["pid"]
        assert first.is_running


def test_concurrent_starts_give_one_stack(home):
    stacks = [FakeStack(home) for _ in range(4)]
    threads = [threading.Thread(target=stack.start) for stack in stacks]
    owner = owner_script(home)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    printed, pid = owner.stdout.readline().split()
    try:
        assert [printed == "started", *(stack.started_here for stack in stacks)].count(True) == 1
        assert {stack.client.ping()["pid"] for stack in stacks} == {int(pid)}
    finally:
        stacks[0].stop()
        owner.kill()
        owner.communicate()


def test_a_detached_stack_outlives_its_starter_until_down(home):
    owner = owner_script(home, detach=True, then="")
    printed, pid = owner.communicate()[0].split()
    assert (printed, owner.returncode) == ("started", 0)
    with FakeStack(home) as stack:
        assert stack.client.ping()["pid"] == int(pid)
    assert stack.is_running
    stack.stop()
    assert not stack.is_running
    stack.stop()


def test_a_stack_can_be_left_running(home):
    owner = owner_script(home, then="stack.leave_running()")
    owner.communicate()
    assert wait_for(lambda: record(home)["detached"])
    with FakeStack(home) as stack:
        assert not stack.started_here
    assert stack.is_running
    stack.stop()


def test_a_stack_that_another_process_started_again_is_not_ended(home):
    first = FakeStack(home).start()
    first.stop()
    with FakeStack(home) as second:
        with first:
            assert not first.started_here
        assert second.is_running


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_owner_dies(home, nothing_left, number):
    owner = owner_script(home)
    assert owner.stdout.readline().startswith("started")
    offspring = int((home / "offspring").read_text())
    assert offspring in pids_of(nothing_left)
    owner.send_signal(number)
    owner.communicate()
    wait_for(lambda: not pids_of(nothing_left))
    assert record(home)["state"] == "stopped"


def test_nothing_is_left_when_the_owner_dies_during_the_start(home, nothing_left):
    owner = owner_script(home, behaviour=["delay=60"])
    wait_for(lambda: record(home).get("services") and pid_of(home, "worker"))
    owner.kill()
    owner.communicate()
    wait_for(lambda: not pids_of(nothing_left))
    with FakeStack(home) as stack:
        assert stack.started_here


def test_a_database_that_a_killed_server_left_incomplete_is_created_again(home):
    state_folder.prepare_home(home)
    temporal_server.prepare(home)
    with contextlib.closing(sqlite3.connect(home / temporal_server.DATABASE)) as database:
        database.execute("CREATE TABLE schema_version (version TEXT)")
    with FakeStack(home) as stack:
        assert stack.client.ping()
    before = (home / temporal_server.DATABASE).stat().st_ino
    with FakeStack(home):
        assert (home / temporal_server.DATABASE).stat().st_ino == before


def test_a_forked_child_of_the_owner_does_not_keep_the_stack(home, nothing_left):
    fork = "import time; pid = os.fork(); print(pid, flush=True) if pid else None; time.sleep(600)"
    owner = owner_script(home, then=fork)
    owner.stdout.readline()
    child = int(owner.stdout.readline())
    owner.kill()
    try:
        wait_for(lambda: pids_of(nothing_left) == {child})
    finally:
        os.kill(child, signal.SIGKILL)
        owner.communicate()


@pytest.mark.parametrize("service", ["worker", "temporal"])
def test_a_killed_service_restarts_on_its_ports(home, service):
    with FakeStack(home) as stack:
        before = record(home)
        killed, offspring = pid_of(home, service), int((home / "offspring").read_text())
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: pid_of(home, service) not in (None, killed))
        wait_for(lambda: all(row["state"] == "running" for row in record(home)["services"]))
        after = record(home)
        assert {**after, "services": None} == {**before, "services": None}
        assert [row["address"] for row in after["services"]] == [row["address"] for row in before["services"]]
        other = "worker" if service == "temporal" else "temporal"
        assert pid_of(home, other) == next(row["pid"] for row in before["services"] if row["name"] == other)
        stack.client.ping()
        if service == "worker":
            assert (
                not psutil.pid_exists(offspring) or psutil.Process(offspring).status() == psutil.STATUS_ZOMBIE
            )
        else:
            port = after["ports"]["temporal_http"]
            plan = Plan(home=home, stack_id="", ports={}, token=after["gateway"]["token"])
            assert temporal_server.is_ready(port, "default", plan.http_host)
            assert not temporal_server.is_ready(port, "default"), "a page can send requests to 127.0.0.1"


def test_a_worker_that_dies_repeatedly_is_restarted(home):
    with FakeStack(home) as stack:
        for _ in range(3):
            pid = wait_for(lambda: pid_of(home, "worker"))
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda pid=pid: pid_of(home, "worker") != pid)
        wait_for(lambda: record(home)["services"][1]["state"] == "running")
        assert stack.client.ping()["pid"] == pid_of(home, "worker")
    assert (home / "logs" / "manager.log").read_text().count("SIGKILL") == 3


def test_a_killed_manager_leaves_nothing_and_the_next_start_works(home, nothing_left):
    first = FakeStack(home).start()
    ports = record(home)["ports"]
    os.kill(record(home)["keeper"]["pid"], signal.SIGKILL)
    wait_for(lambda: not pids_of(nothing_left))
    assert record(home)["state"] == "ready"
    assert not first.is_running
    assert first.status()["services"][0]["state"] == "stopped"
    with FakeStack(home) as stack:
        assert stack.started_here
        assert record(home)["ports"] == ports
    first.stop()


def test_ports_and_token_stay_the_same_over_a_restart(home):
    with FakeStack(home) as stack:
        before, client = record(home), stack.client
    with FakeStack(home):
        after = record(home)
        client.ping()
    assert after["id"] != before["id"]
    assert after["ports"] == before["ports"]
    assert after["temporal"] == before["temporal"]


def test_a_recorded_port_that_is_taken_is_replaced(home):
    with FakeStack(home):
        taken = record(home)["ports"]["temporal"]
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", taken))
        server.listen()
        with FakeStack(home):
            assert record(home)["ports"]["temporal"] != taken


def test_a_requested_port_is_used_or_an_error(home, monkeypatch, nothing_left):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        server.listen()
        monkeypatch.setenv("TEMPORAL_AIRFLOW_PORT", str(port))
        with pytest.raises(
            ServiceUnavailableError, match=f"Port {port}, asked for by TEMPORAL_AIRFLOW_PORT, is taken"
        ):
            FakeStack(home).start()
        assert not pids_of(nothing_left)
    with FakeStack(home):
        assert record(home)["temporal"]["address"] == f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("behaviour", "error", "message"),
    [
        ("refuse=1", UnsupportedVersionError, "^no\n  do$"),
        (
            "crash=1",
            ServiceUnavailableError,
            "worker service ended with exit code 7. Last in its log:\nthe reason, in the log",
        ),
    ],
)
def test_the_error_of_a_worker_that_does_not_start_is_shown(home, nothing_left, behaviour, error, message):
    with pytest.raises(error, match=message):
        FakeStack(home, behaviour=[behaviour]).start()
    assert not FakeStack(home).is_running
    wait_for(lambda: not pids_of(nothing_left), timeout=2)


def test_the_error_of_a_manager_that_does_not_start_is_shown(home):
    stack = FakeStack(home, behaviour=[])
    stack._manager_command = lambda: [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with pytest.raises(ServiceUnavailableError, match=r"manager ended before it was ready.*\nno such thing"):
        stack.start()


def test_a_running_stack_of_another_version_is_refused(home):
    with FakeStack(home):
        state_folder.write_stack(home, {**record(home), "version": "0.0.1"})
        with pytest.raises(InvalidInputError, match=r"is of version 0\.0\.1"):
            FakeStack(home).start()


@pytest.mark.parametrize(
    "name", ["with space", "50% #1 & 'quote' \"double\"", "ünï/" + "deep" * 40 + "/" + "long" * 40]
)
def test_a_home_of_any_name_works(tmp_path, name):
    with FakeStack(tmp_path / name) as stack:
        stack.client.ping()
        assert (stack.home / "temporal.db").stat().st_mode & 0o077 == 0


def test_a_relative_home_is_resolved_at_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with FakeStack("home") as stack:
        monkeypatch.chdir("/")
        assert stack.is_running
        assert stack.client.ping()["env"]["TEMPORAL_AIRFLOW_HOME"] == str(tmp_path / "home")


def test_a_stack_whose_home_was_deleted_ends(home, nothing_left):
    stack = FakeStack(home).start()
    shutil.rmtree(home)
    owner, stack._ownership = stack._ownership, None
    owner.release()
    wait_for(lambda: not pids_of(nothing_left))


def test_a_stack_that_lingers_is_taken_over_when_its_owner_was_killed(home):
    owner = owner_script(home, linger=60)
    _, pid = owner.stdout.readline().split()
    owner.kill()
    owner.communicate()
    successor = FakeStack(home, linger=60).start()
    assert not successor.started_here
    assert successor.client.ping()["pid"] == int(pid)
    successor.leave()
    assert not successor.is_running


def test_a_stack_that_lingers_ends_without_a_successor(home):
    owner = owner_script(home, linger=0.5)
    owner.stdout.readline()
    owner.kill()
    owner.communicate()
    assert wait_for(lambda: not state_folder.manager_is_running(home))


def test_a_stack_that_was_taken_over_lingers_again(home):
    owner = owner_script(home, linger=2)
    owner.stdout.readline()
    successor = owner_script(home, linger=2)
    assert successor.stdout.readline().startswith("attached")
    owner.kill()
    owner.communicate()
    with pytest.raises(subprocess.TimeoutExpired):
        successor.communicate(timeout=4)
    assert state_folder.manager_is_running(home)
    successor.kill()
    successor.communicate()
    assert wait_for(lambda: not state_folder.manager_is_running(home))


def test_a_shared_stack_ends_with_its_last_process(home):
    first, second = FakeStack(home, linger=60), FakeStack(home, linger=60)
    first.start()
    second.start()
    first.leave()
    assert second.is_running
    assert second.client.ping()
    second.leave()
    assert not second.is_running


def test_leaving_a_shared_stack_does_not_end_a_later_one(home):
    shared = FakeStack(home, linger=60).start()
    FakeStack(home).stop()
    with FakeStack(home) as other:
        shared.leave()
        assert other.is_running


def test_a_shared_stack_that_is_left_running_stops_lingering(home):
    owner = owner_script(home, linger=0.5, then="stack.leave_running()")
    owner.communicate()
    assert wait_for(lambda: record(home)["detached"])
    attached = FakeStack(home, linger=60).start()
    attached.leave()
    assert attached.is_running
    attached.stop()
