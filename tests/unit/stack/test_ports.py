from __future__ import annotations

import os
import socket

import pytest

from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError
from temporal_airflow_nb.stack.services import ports


@pytest.fixture
def taken_port():
    with socket.socket() as server:
        server.bind((ports.LOOPBACK, 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_with_a_listener_is_not_free(taken_port):
    assert not ports.is_free(taken_port)


def test_chosen_ports_are_free_and_differ():
    chosen = ports.choose(["a", "b", "c"])
    assert list(chosen) == ["a", "b", "c"]
    assert len(set(chosen.values())) == 3
    assert all(map(ports.is_free, chosen.values()))


def test_recorded_ports_are_used_again_if_free(taken_port):
    before = ports.choose(["a", "b"])
    assert ports.choose(["a", "b"], recorded=before) == before
    chosen = ports.choose(["a", "b"], recorded={"a": taken_port, "b": before["b"]})
    assert chosen["a"] != taken_port
    assert chosen["b"] == before["b"]


def test_a_recorded_port_that_failed_is_avoided():
    before = ports.choose(["a"])
    assert ports.choose(["a"], recorded=before, avoid=before.values()) != before


def test_a_requested_port_that_is_taken_is_an_error_with_its_variable(taken_port):
    with pytest.raises(
        ServiceUnavailableError, match=rf"Port {taken_port}, asked for by TEMPORAL_AIRFLOW_PORT"
    ) as info:
        ports.choose(["temporal", "gateway"], asked={"temporal": taken_port})
    assert info.value.exit_code == 3
    assert info.value.facts["address"] == f"127.0.0.1:{taken_port}"


def test_a_port_requested_twice_is_an_error():
    free = ports.choose(["a"])["a"]
    with pytest.raises(ServiceUnavailableError, match="TEMPORAL_AIRFLOW_UI_PORT"):
        ports.choose(["temporal", "temporal_ui"], asked={"temporal": free, "temporal_ui": free})


def test_requested_ports_are_read_from_the_environment():
    environ = {"TEMPORAL_AIRFLOW_PORT": "7233", "TEMPORAL_AIRFLOW_UI_PORT": "", "OTHER": "1"}
    assert ports.requested(environ) == {"temporal": 7233}


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "７２３３", "7233.0"])
def test_a_requested_port_that_is_no_number_is_bad_input(text):
    with pytest.raises(InvalidInputError, match="TEMPORAL_AIRFLOW_PORT"):
        ports.requested({"TEMPORAL_AIRFLOW_PORT": text})


def test_a_listener_is_distinguished_from_another_process(taken_port):
    assert ports.listens(os.getpid(), taken_port)
    assert not ports.listens(os.getppid(), taken_port)
