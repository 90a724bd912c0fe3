from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from temporal_airflow_nb import connection_owner
from temporal_airflow_nb.connection_owner import find_user, is_of_another_user
from temporal_airflow_nb.foreign_requests import ForeignRequestFilter

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the user")
NOBODY = 65534


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield server


@pytest.mark.parametrize("how", ["_ask_kernel", "_read_table"])
def test_the_user_of_a_connection_is_found(server, how):
    with socket.create_connection(server.getsockname()) as client:
        assert getattr(connection_owner, how)(client.getsockname(), client.getpeername()) == os.geteuid()
        assert not is_of_another_user(client.getsockname(), client.getpeername())


def test_a_connection_that_doesn_t_exist_has_no_user():
    assert find_user(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
    assert find_user(("::1", 1), ("::1", 2)) is None
    assert find_user(("testclient", 1), ("testserver", 2)) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_another_user_is_refused(server, monkeypatch):
    monkeypatch.setattr(connection_owner, "_is_unmapped", lambda _: False)
    host, port = server.getsockname()
    script = f"exec 3<>/dev/tcp/{host}/{port}; read <&3"
    process = subprocess.Popen(["/bin/bash", "-c", script], user=NOBODY, env={}, cwd="/")
    connection, client = server.accept()
    with connection:
        for how in ("_ask_kernel", "_read_table"):
            assert getattr(connection_owner, how)(client, (host, port)) == NOBODY
        assert is_of_another_user(client, (host, port))
        assert answer_of(client, (host, port), own_user_only=True) == 403
        assert answer_of(client, (host, port), own_user_only=False) == 200
    process.wait(20)


def answer_of(client, server, **options):
    statuses = []

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        statuses.extend([message["status"]] if "status" in message else [])

    headers = [(b"host", b"127.0.0.1")]
    scope = {"type": "http", "method": "GET", "headers": headers, "client": client, "server": server}
    with pytest.raises(StopIteration):
        ForeignRequestFilter(application, **options)(scope, None, send).send(None)
    return statuses[0]
