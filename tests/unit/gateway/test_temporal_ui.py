"""The proxy before Temporal's UI."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.gateway import temporal_ui
from temporal_airflow_nb.gateway.temporal_ui import UiProxy
from temporal_airflow_nb.stack.services import ports

HOST = "127.0.0.1"


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, bytes]]

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.requestline, str(self.headers), body))
        answer = b"x" * 300_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)


@pytest.fixture
def server():
    server = ThreadingHTTPServer((HOST, 0), Server)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxy(server):
    port = ports.choose(["ui"])["ui"]
    proxy = UiProxy((HOST, port), server.server_address)
    proxy.start()
    yield HOST, port
    proxy.stop()


def ask(proxy, *lines, body=b""):
    with socket.create_connection(proxy, timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                received += data
    return received


def test_a_request_and_its_answer_are_passed_on_whole(server, proxy):
    host = f"Host: 127.0.0.1:{proxy[1]}"
    answer = ask(proxy, "POST /a?b=c HTTP/1.1", host, "Content-Length: 200000", body=b"y" * 200_000)
    assert answer.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200"))
    assert answer.endswith(b"\r\n\r\n" + b"x" * 300_000)
    ((first, headers, body),) = server.seen
    assert first == "POST /a?b=c HTTP/1.1"
    assert body == b"y" * 200_000
    assert f"127.0.0.1:{proxy[1]}" in headers


def test_the_server_gets_one_request_of_a_connection(server, proxy):
    host = "Host: localhost"
    second = b"GET /second HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    ask(proxy, "GET /first HTTP/1.1", host, "Connection: keep-alive, Upgrade", "Upgrade: h2c", body=second)
    assert [first for first, *_ in server.seen] == ["GET /first HTTP/1.1"]
    assert "upgrade" not in server.seen[0][1].lower()


@pytest.mark.parametrize(
    "lines",
    [
        ["GET / HTTP/1.1", "Host: evil.example"],
        ["GET / HTTP/1.1"],
        ["GET / HTTP/1.1", "Host: localhost", "Host: evil.example"],
        ["POST / HTTP/1.1", "Host: localhost", "Origin: http://evil.example"],
        ["POST / HTTP/1.1", "host:localhost", "ORIGIN: null"],
        ["GET / HTTP/1.1", "Host: localhost", "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors"],
    ],
)
def test_a_request_of_another_page_is_refused(server, proxy, lines):
    assert ask(proxy, *lines).startswith(b"HTTP/1.1 403 ")
    assert server.seen == []


@pytest.mark.parametrize(
    "lines",
    [
        ["GET http://evil.example/ HTTP/1.1", "Host: localhost"],
        ["GET / HTTP/1.1", "Host: localhost", "X: a\nHost: evil.example"],
        ["GET / HTTP/1.1\nHost: evil.example", "Host: localhost"],
        ["GET / HTTP/1.1", "Host : evil.example", "Host: localhost"],
        ["GET / HTTP/1.1", "Host: localhost", " folded: evil.example"],
        ["GET / HTTP/1.1", "Host: localhost", "\tfolded: evil.example"],
        ["GET / HTTP/1.1", "Host: localhost", "no colon"],
        ["GET / HTTP/1.1", "Host: localhost", ": no name"],
        ["GET / HTTP/1.1", "Host: localhost", "X: \0"],
        ["", "GET / HTTP/1.1", "Host: localhost"],
        ["PRI * HTTP/2.0"],
    ],
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(server, proxy, lines):
    assert ask(proxy, *lines).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 "))
    assert server.seen == []


def test_a_head_that_is_too_long_or_never_ends_ends_the_connection(server, proxy, monkeypatch):
    assert ask(proxy, "GET / HTTP/1.1", "X: " + "a" * 200_000) == b""
    monkeypatch.setattr(temporal_ui, "_HEAD_SECONDS", 0.2)
    with socket.create_connection(proxy, timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        assert connection.recv(100) == b""
    assert server.seen == []


def test_a_server_that_has_not_started_is_told():
    port, nobody = ports.choose(["ui", "nobody"]).values()
    proxy = UiProxy((HOST, port), (HOST, nobody))
    proxy.start()
    assert ask((HOST, port), "GET / HTTP/1.1", "Host: localhost").startswith(b"HTTP/1.1 502 ")
    proxy.stop()


def test_a_taken_port_is_an_error():
    with socket.create_server((HOST, 0)) as other:
        proxy = UiProxy(other.getsockname(), (HOST, 1))
        with pytest.raises(InvalidInputError, match="port of Temporal's UI can't be used"):
            proxy.start()
