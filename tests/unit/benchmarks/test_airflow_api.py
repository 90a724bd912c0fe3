"""The REST client of benchmarks and tests repeats a request that met a busy database."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from benchmarks.airflow_api import AirflowApi, ApiError


@pytest.fixture
def api():
    """A client of a server that gives the answers of ``api.statuses``, one after the other."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(200)

        def answer(self, status):
            body = json.dumps({"access_token": "token"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def answer_next(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.answer(client.statuses.pop(0))

        do_POST = do_DELETE = answer_next

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = AirflowApi(f"http://127.0.0.1:{server.server_port}", retry_for=10)
    yield client
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("method", "repeated"), [("POST", 409), ("DELETE", 404)])
def test_a_request_that_was_carried_out_in_spite_of_an_error_is_not_an_error(api, method, repeated):
    api.statuses = [500, repeated]
    assert api.call(method, "dags", {}) is None


@pytest.mark.parametrize(("method", "status"), [("POST", 404), ("DELETE", 409)])
def test_a_refusal_is_an_error_after_a_busy_database_too(api, method, status):
    api.statuses = [500, status]
    with pytest.raises(ApiError) as refused:
        api.call(method, "dags", {})
    assert refused.value.status == status


@pytest.mark.parametrize(("method", "status"), [("POST", 409), ("DELETE", 404)])
def test_a_refusal_of_the_first_request_is_an_error(api, method, status):
    api.statuses = [status]
    with pytest.raises(ApiError):
        api.call(method, "dags", {})
