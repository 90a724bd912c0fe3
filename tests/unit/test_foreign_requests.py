from __future__ import annotations

import asyncio

import pytest

from temporal_airflow_nb.config.environment import allowed_hosts
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.foreign_requests import ForeignRequestFilter, find_refusal

HOST = "127.0.0.1:21000"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    monkeypatch.delenv("TEMPORAL_AIRFLOW_ALLOWED_HOSTS", raising=False)


def refused(method="GET", host=HOST, **headers):
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return find_refusal(method, [("host", host), *named])


@pytest.mark.parametrize("host", [HOST, "localhost:21000", "LOCALHOST", "[::1]:21000", "127.0.0.1"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_program_on_this_machine_is_answered(host, method):
    assert refused(method, host) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example:21000", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1", "0.0.0.0:21000",
     "evil.localhost:21000", "127.0.0.1@evil.example", "evil.example#@127.0.0.1", "localhost."],
)  # fmt: skip
def test_a_name_that_points_to_this_machine_is_refused(host):
    assert "was sent to the host" in refused(host=host)


def test_a_request_with_no_host_or_with_two_is_refused():
    assert find_refusal("GET", [])
    assert find_refusal("GET", [("host", HOST), ("host", "evil.example")])


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://127.0.0.1:21001", "http://localhost:21000", "null", "", "file://"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_page_of_another_origin_is_refused(origin, method):
    assert "comes from a page of" in refused(method, origin=origin)


def test_the_stack_s_own_page_is_answered():
    assert refused("POST", origin=f"http://{HOST}") is None
    assert refused("POST", origin=f"http://{HOST}", sec_fetch_site="same-origin") is None
    assert refused(sec_fetch_site="none", sec_fetch_mode="navigate") is None


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_may_only_link_to_the_stack(site):
    assert refused(sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="document") is None
    assert refused(sec_fetch_site=site, sec_fetch_mode="no-cors")
    assert refused(sec_fetch_site=site, sec_fetch_mode="cors", origin="https://evil.example")
    assert refused("POST", sec_fetch_site=site, sec_fetch_mode="navigate", origin="https://evil.example")
    assert refused("POST", sec_fetch_site=site, sec_fetch_mode="navigate", origin="null")


def test_a_page_of_another_site_shows_the_stack_in_no_frame():
    assert refused(sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="iframe")


def test_an_allowed_host_is_answered(monkeypatch):
    monkeypatch.setenv("TEMPORAL_AIRFLOW_ALLOWED_HOSTS", "*.github.dev, Box:9000")
    assert refused(host="x-21000.github.dev") is None
    assert refused("POST", origin="https://x-21000.github.dev") is None
    assert refused(host="box:9000") is None
    assert refused(host="box:9001")
    assert refused("POST", origin="https://github.dev.evil.example")


@pytest.mark.parametrize("text", ["http://box", "box/path", "a b", "box:port", "[::1"])
def test_an_allowed_host_that_is_none_is_named(text, monkeypatch):
    monkeypatch.setenv("TEMPORAL_AIRFLOW_ALLOWED_HOSTS", f"good.example,{text}")
    with pytest.raises(InvalidInputError, match="which is no host name"):
        allowed_hosts()


def test_a_hub_s_name_is_answered_on_a_hub(monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    hub = "hub.example.org"
    assert refused(host=hub) is None
    assert refused("POST", hub, origin=f"https://{hub}") is None
    assert refused("POST", "internal:80", origin=f"https://{hub}", x_forwarded_host=hub) is None
    assert refused("POST", "internal:80", origin=f"https://{hub}", sec_fetch_site="same-origin") is None
    assert refused("POST", hub, origin="https://evil.example")
    assert refused("POST", hub, origin="https://evil.example", sec_fetch_site="cross-site")


def test_a_refused_request_reaches_no_application():
    async def application(*_):
        raise AssertionError

    sent = []

    async def send(message):
        sent.append(message)

    async def ask(kind):
        headers = [(b"Host", HOST.encode()), (b"Origin", b"http://evil.example")]
        await ForeignRequestFilter(application)(
            {"type": kind, "method": "POST", "headers": headers}, None, send
        )

    asyncio.run(ask("http"))
    assert sent[0]["status"] == 403
    assert b"evil.example" in sent[1]["body"]
    asyncio.run(ask("websocket"))
    assert sent[2]["type"] == "websocket.close"
