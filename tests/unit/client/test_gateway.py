"""The client of the gateway, against a server that answers what a test wants."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from temporal_airflow_nb.client.gateway import GatewayClient
from temporal_airflow_nb.errors import DagNotFoundError, ServiceUnavailableError, TemporalAirflowError
from temporal_airflow_nb.messages.requests import SubmitFile
from temporal_airflow_nb.stack.services import ports


class Gateway(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port=0):
        super().__init__((ports.LOOPBACK, port), Handler)
        self.answers = [(200, {"ok": True})]
        self.seen = []

    @property
    def address(self):
        return f"{ports.LOOPBACK}:{self.server_port}"

    def serve(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers["Authorization"], body))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if answer == "hang":
            time.sleep(3)
            return
        status, data = answer
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def gateway():
    server = Gateway().serve()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(gateway):
    return GatewayClient(gateway.address, "secret", retry_for=2)


def test_a_request_carries_operation_token_and_arguments(gateway, client):
    assert client.get_runs_table("etl", limit=5) == {"ok": True}
    request = {"limit": 5, "dag_id": "etl", "state": None}
    assert gateway.seen == [("/v1/get_runs_table", "Bearer secret", request)]


def test_a_watch_carries_how_long_the_gateway_may_wait(gateway, client):
    client.watch_run("etl", "r", timeout=3)
    request = {"dag_id": "etl", "run_id": "r", "after": None, "until_ended": False, "timeout": 3}
    assert gateway.seen[0][2] == request


def test_a_copy_without_retries_shares_all_but_its_limits(client):
    client.production = "the cluster"
    copied = client.without_retries(timeout=1)
    assert (copied.retry_for, copied.timeout, copied.production) == (0, 1, "the cluster")
    assert (client.retry_for, client.timeout) == (2, 60)
    assert copied.with_limits(retry_for=3).timeout == 1


def test_an_error_is_raised_as_its_own_class(gateway, client):
    error = DagNotFoundError("no DAG 'x'", hint="It defines: y.", dag_id="x")
    gateway.answers = [(404, {"error": error.to_dict()})]
    with pytest.raises(DagNotFoundError, match="no DAG 'x'") as info:
        client.submit_file(SubmitFile("/dag.py"))
    assert info.value.hint == "It defines: y."
    assert info.value.facts == {"dag_id": "x"}
    assert len(gateway.seen) == 1


def test_a_lost_connection_is_tried_again(gateway, client):
    gateway.answers = ["drop", "drop", (200, {"ok": True})]
    assert client.get_run("etl", "r") == {"ok": True}
    assert len(gateway.seen) == 3


def test_a_submission_whose_answer_is_lost_is_not_sent_again(gateway, client):
    gateway.answers = ["drop"]
    with pytest.raises(ServiceUnavailableError, match="went away during `submit_file`") as info:
        client.submit_file(SubmitFile("/dag.py"))
    assert "may have been created" in info.value.hint
    assert len(gateway.seen) == 1


def test_a_gateway_that_starts_late_is_tried_again():
    port = ports.choose(["gateway"])["gateway"]
    started = []
    thread = threading.Timer(0.5, lambda: started.append(Gateway(port).serve()))
    thread.start()
    assert GatewayClient(f"127.0.0.1:{port}", "secret", retry_for=10).submit_file(SubmitFile("/dag.py")) == {
        "ok": True
    }
    started[0].shutdown()
    started[0].server_close()


def test_a_gateway_that_does_not_start_is_unavailable():
    port = ports.choose(["gateway"])["gateway"]
    began = time.monotonic()
    with pytest.raises(ServiceUnavailableError, match=rf"127\.0\.0\.1:{port} can't be reached") as info:
        GatewayClient(f"127.0.0.1:{port}", "secret", retry_for=0.5).ping()
    assert time.monotonic() - began < 2
    assert info.value.exit_code == 3
    assert "temporal-airflow status" in info.value.hint


def test_a_gateway_that_does_not_answer_is_unavailable(gateway, client):
    gateway.answers = ["hang"]
    with pytest.raises(ServiceUnavailableError, match="did not answer `ping` in 0 s"):
        client.with_limits(timeout=0.2).ping()


def test_an_error_names_a_refused_token(gateway, client):
    gateway.answers = [(401, {})]
    with pytest.raises(ServiceUnavailableError, match="belongs to another stack"):
        client.ping()


@pytest.mark.parametrize("answer", [(500, b"<html>"), (500, {"detail": 1}), (200, b"[]")])
def test_an_answer_that_is_not_json_of_the_gateway_is_an_error(gateway, client, answer):
    gateway.answers = [answer]
    with pytest.raises(TemporalAirflowError, match=rf"answered `ping` with HTTP {answer[0]}"):
        client.ping()
