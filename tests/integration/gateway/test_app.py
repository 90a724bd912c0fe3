"""The gateway's application: one route for each operation that its client carries out."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from temporal_airflow_nb.client.capabilities import OPERATIONS, Backend, refusals_of
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.gateway import request_limits
from temporal_airflow_nb.stack import state_folder

ROUTES = """
import json
from temporal_airflow_nb.gateway.app import application

app = application("secret", None, dict)
print(json.dumps(sorted(route.path for route in app.routes if route.path.startswith("/v1/"))))
"""

CURIOUS = """
import os
from pathlib import Path
from airflow.sdk import DAG, task

with DAG("curious", schedule=None):

    @task
    def look():
        seen, pid = [str(dict(os.environ))], os.getpid()
        while pid > 1 and Path(f"/proc/{pid}").exists():
            try:
                seen.append(Path(f"/proc/{pid}/environ").read_text(errors="replace"))
                seen.append(Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))
                stat = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                break
            # The test's own processes have what the test has read.
            if "temporal_airflow_nb" not in seen[-1] and len(seen) > 3:
                break
            pid = int(stat.rpartition(")")[2].split()[1])
        text = " ".join(seen)
        print(text)
        return text

    look()
"""


def test_the_gateway_serves_what_its_client_can_ask(stack):
    # In a process with the stack's settings: this one must not import Airflow before they are made.
    printed = subprocess.run(
        [sys.executable, "-c", ROUTES],
        env={**os.environ, **stack.status()["env"]},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    expected = sorted(f"/v1/{name}" for name in set(OPERATIONS) - refusals_of(Backend.GATEWAY).keys())
    assert json.loads(printed.splitlines()[-1]) == expected


@pytest.mark.parametrize("runs", [0, 1_001])
def test_a_grid_of_too_many_runs_is_refused(stack, runs):
    with pytest.raises(InvalidInputError, match=f"can't show {runs} runs"):
        stack.client.get_grid_changes("etl", "nothing", runs=runs)


def test_an_argument_of_another_type_is_named(stack):
    with pytest.raises(InvalidInputError, match="`get_task` can't take 'first' as map_index"):
        stack.client.get_task("etl", "nothing", "load", map_index="first")


def test_no_task_has_the_token_in_its_environment_or_in_that_of_a_parent(stack, tmp_path):
    (tmp_path / "curious.py").write_text(CURIOUS)
    run = stack.run(tmp_path / "curious.py")
    assert run.wait(timeout=120) == "success"
    seen = run.xcoms.set_index("task_id")["value"]["look"]
    assert "AIRFLOW_HOME" in seen, "it is the environment of a task"
    token = state_folder.read_stack(stack.home)["gateway"]["token"]
    assert token not in seen
    assert token not in str(run.logs("look").lines)


@pytest.fixture
def gateway(stack):
    host, _, port = state_folder.read_stack(stack.home)["gateway"]["address"].partition(":")
    return host, int(port)


def connect(gateway):
    return socket.create_connection(gateway, timeout=request_limits.HEAD_SECONDS + 30)


def authorized(stack, head="POST /v1/ping HTTP/1.1"):
    recorded = state_folder.read_stack(stack.home)["gateway"]
    return f"{head}\r\nHost: {recorded['address']}\r\nAuthorization: Bearer {recorded['token']}\r\n".encode()


def status_of(connection):
    return connection.recv(65536).partition(b"\r\n")[0]


@pytest.mark.timeout(200)
def test_a_request_that_doesn_t_arrive_ends_its_connection(stack, gateway):
    heads = {
        "nothing": b"",
        "half a line": b"POST /v1/pi",
        "half a head": b"POST /v1/ping HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        "half a head with the token": authorized(stack),
        # Refused, and its body is never read.
        "half a body without the token": b"POST /v1/ping HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n1",
    }
    connections = {name: connect(gateway) for name in heads}
    for name, connection in connections.items():
        connection.sendall(heads[name])
    began = time.monotonic()
    for name, connection in connections.items():
        while data := connection.recv(65536):
            assert b" 401 " in data or b"another user" in data, name
    assert time.monotonic() - began < request_limits.HEAD_SECONDS + 20
    for connection in connections.values():
        connection.close()
    assert stack.client.ping()["pid"]


@pytest.mark.parametrize("size", [b"Content-Length: 99999999999", b"Content-Length: 67108865"])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(stack, gateway, size):
    with connect(gateway) as connection:
        connection.sendall(authorized(stack) + size + b"\r\n\r\n")
        assert status_of(connection) == b"HTTP/1.1 413 Request Entity Too Large"


def test_a_body_of_unknown_length_is_bounded(stack, gateway):
    with connect(gateway) as connection:
        connection.sendall(authorized(stack) + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        with contextlib.suppress(OSError):
            for _ in range(80):
                connection.sendall(chunk)
        assert status_of(connection).startswith(b"HTTP/1.1 413")


def test_a_head_that_is_too_large_is_refused(gateway):
    with connect(gateway) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"POST /v1/ping HTTP/1.1\r\nX: " + b"a" * 200_000)
        assert status_of(connection).startswith(b"HTTP/1.1 400")


def test_a_page_s_request_is_refused_before_its_token_is_read(stack, gateway):
    for header in (b"Origin: http://evil.example", b"Sec-Fetch-Site: same-site"):
        with connect(gateway) as connection:
            connection.sendall(authorized(stack) + header + b"\r\nContent-Length: 0\r\n\r\n")
            assert status_of(connection).startswith(b"HTTP/1.1 403")
    with connect(gateway) as connection:
        connection.sendall(authorized(stack).replace(b"Host: 127.0.0.1", b"Host: evil.example") + b"\r\n")
        assert status_of(connection).startswith(b"HTTP/1.1 403")
