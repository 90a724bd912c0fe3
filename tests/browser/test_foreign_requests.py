"""A page of another site, in a real browser, can neither use nor read the services of a stack; their own pages can."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from temporal_airflow_nb.stack import state_folder
from tests.support.stack_helpers import with_client
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)

MILLISECONDS = 60_000
# The browser of these tests resolves each name below to 127.0.0.1, as the name server of an attacker may do.
NAME = "rebound.evil.example"
DAG = """
import time
from pathlib import Path
from airflow.sdk import DAG, get_current_context, task

with DAG("besieged", schedule=None):

    @task
    def wait():
        while not Path(get_current_context()["dag_run"].conf["until"]).exists():
            time.sleep(0.1)

    wait()
"""
# Sends a request and returns what the page can see of it.
SEND = """
async ([url, options]) => {
  try {
    const answer = await fetch(url, {...options, credentials: "include"});
    return [answer.type, answer.status, await answer.text()];
  } catch (error) {
    return ["error", 0, String(error)];
  }
}
"""


class Blank(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>Harmless</title>")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def foreign_site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Blank)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def run(ui_stack, tmp_path_factory):
    """A run whose workflow waits until the tests are over."""
    folder = tmp_path_factory.mktemp("besieged")
    (folder / "besieged.py").write_text(DAG)
    run = ui_stack.run(folder / "besieged.py", conf={"until": str(folder / "over")})
    until(lambda: "running" in set(run.tasks["state"]), "the task runs")
    yield run
    (folder / "over").touch()
    assert run.wait(timeout=60) == "success"


@pytest.fixture
def page(chromium):
    context = chromium.new_context()
    context.set_default_timeout(MILLISECONDS)
    yield context.new_page()
    context.close()


@pytest.fixture
def ports(ui_stack):
    return state_folder.read_stack(ui_stack.home)["ports"]


def attacks(run, ports, host):
    """Yield addresses and options of requests that would change something if they were answered."""
    workflow = f"api/v1/namespaces/default/workflows/{run.workflow_id}"
    text = {"method": "POST", "headers": {"Content-Type": "text/plain"}}
    for port in (ports["temporal_http"], ports["temporal_ui"]):
        at = f"http://{host}:{port}/{workflow}"
        yield f"{at}/signal/resync", {**text, "body": '{"signalName": "resync", "input": []}'}
        yield f"{at}/cancel", {**text, "body": '{"reason": "a page"}'}
        yield f"{at}/terminate", {**text, "body": "{}"}
    airflow = f"http://{host}:{ports['airflow_ui']}"
    yield f"{airflow}/auth/token", {**text, "body": "{}"}
    yield f"{airflow}/api/v2/dags/besieged/dagRuns", {**text, "body": '{"logical_date": null}'}
    yield f"http://{host}:{ports['gateway']}/v1/cancel_run", {**text, "body": '{"dag_id": "besieged"}'}


def readable(run, ports, host):
    workflow = f"api/v1/namespaces/default/workflows/{run.workflow_id}"
    for port in (ports["temporal_http"], ports["temporal_ui"]):
        yield f"http://{host}:{port}/{workflow}"
        yield f"http://{host}:{port}/{workflow}/history"
    for path in ("auth/token", "api/v2/dags", "api/v2/version", "ui/config", ""):
        yield f"http://{host}:{ports['airflow_ui']}/{path}"
    yield f"http://{host}:{ports['gateway']}/v1/ping"


def signals_and_cancellations(ui_stack, run):
    async def count(client):
        handle = client.get_workflow_handle(run.workflow_id)
        kinds = [event.WhichOneof("attributes") async for event in handle.fetch_history_events()]
        return [kind for kind in kinds if "signaled" in kind or "cancel" in kind or "terminated" in kind]

    return with_client(ui_stack, count)


def test_a_page_of_another_origin_can_do_nothing(ui_stack, run, ports, page, foreign_site):
    page.goto(f"http://{foreign_site}/")
    before = signals_and_cancellations(ui_stack, run)
    for mode in ("no-cors", "cors"):
        for url, options in attacks(run, ports, "127.0.0.1"):
            kind, status, text = page.evaluate(SEND, [url, {**options, "mode": mode}])
            assert (status, kind in ("opaque", "error")) == (0, True), (url, text)
        for url in readable(run, ports, "127.0.0.1"):
            kind, status, text = page.evaluate(SEND, [url, {"mode": mode}])
            assert (status, kind in ("opaque", "error")) == (0, True), (url, text)
    assert signals_and_cancellations(ui_stack, run) == before
    assert run.state == "running"
    assert len(ui_stack.client.list_runs("besieged")) == 1


@pytest.mark.parametrize("service", ["temporal_http", "temporal_ui", "airflow_ui", "gateway"])
def test_a_page_whose_name_points_to_this_machine_can_do_nothing(ui_stack, run, ports, page, service):
    port = ports[service]
    # The answer has the origin that the page of the attacker's own server had, and this browser's rules for pages that
    # reach into a local network don't apply to it.
    assert page.goto(f"http://{NAME}:{port}/").status in (403, 404)
    before = signals_and_cancellations(ui_stack, run)
    for url in readable(run, ports, NAME):
        if f":{port}/" in url:
            kind, status, text = page.evaluate(SEND, [url, {}])
            assert (kind, status) == ("basic", 403), (url, text)
    for url, options in attacks(run, ports, NAME):
        if f":{port}/" in url:
            kind, status, text = page.evaluate(SEND, [url, options])
            assert (kind, status) == ("basic", 403), (url, text)
    assert signals_and_cancellations(ui_stack, run) == before
    assert run.state == "running"


def test_a_form_of_another_page_is_refused(ui_stack, run, ports, page, foreign_site):
    page.goto(f"http://{foreign_site}/")
    for url, _ in attacks(run, ports, "127.0.0.1"):
        with page.expect_navigation() as shown:
            page.evaluate(
                "url => { const form = document.createElement('form'); form.method = 'POST'; form.action = url;"
                " form.enctype = 'text/plain'; document.body.append(form); form.submit(); }",
                url,
            )
        assert shown.value.status == 403, url
        page.goto(f"http://{foreign_site}/")
    assert run.state == "running"


def test_the_stack_s_own_pages_work(ui_stack, run, ports, page, foreign_site):
    # By a link in another page, such as a notebook's.
    page.goto(f"http://{foreign_site}/")
    page.evaluate("url => { location.href = url }", run.links["temporal"])
    page.get_by_text(run.workflow_id).first.wait_for()
    signals = len(signals_and_cancellations(ui_stack, run))
    csrf = next(one["value"] for one in page.context.cookies() if one["name"] == "_csrf")
    options = {
        "method": "POST",
        "headers": {"Content-Type": "application/json", "X-CSRF-Token": csrf},
        "body": '{"signalName": "resync"}',
    }
    url = f"{ui_stack.links['temporal']}/api/v1/namespaces/default/workflows/{run.workflow_id}/signal/resync"
    kind, status, text = page.evaluate(SEND, [url, options])
    assert status == 200, (kind, text)
    assert len(signals_and_cancellations(ui_stack, run)) == signals + 1

    page.goto(f"http://{foreign_site}/")
    page.evaluate("url => { location.href = url }", run.links["airflow"])
    page.get_by_text("besieged").first.wait_for()
    for host in ("127.0.0.1", "localhost"):
        page.goto(f"http://{host}:{ports['airflow_ui']}/dags/besieged")
        page.get_by_text("besieged").first.wait_for()
        kind, status, text = page.evaluate(SEND, [f"http://{host}:{ports['airflow_ui']}/ui/config", {}])
        assert status == 200, (kind, text)
        note = {
            "method": "PATCH",
            "headers": {"Content-Type": "application/json"},
            "body": '{"note": "seen"}',
        }
        url = f"http://{host}:{ports['airflow_ui']}/api/v2/dags/besieged/dagRuns/{run.run_id.replace('+', '%2B')}"
        kind, status, text = page.evaluate(SEND, [url, note])
        assert status == 200, (kind, text)
