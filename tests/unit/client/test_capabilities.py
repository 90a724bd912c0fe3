"""Each client carries out what the table of capabilities says, and the documentation shows that table."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from temporal_airflow_nb.client.capabilities import (
    FEATURES,
    OPERATIONS,
    Backend,
    documented_table,
    refusals_of,
)
from temporal_airflow_nb.client.gateway import GatewayClient
from temporal_airflow_nb.client.protocol import StackClient
from temporal_airflow_nb.client.rest.client import RestClient
from temporal_airflow_nb.client.rest.http import RestApi
from temporal_airflow_nb.client.temporal.client import WorkflowClient
from temporal_airflow_nb.errors import UnavailableHereError

CONNECT = Path(__file__).parents[3] / "docs" / "connect.md"
CLASSES = {
    Backend.GATEWAY: GatewayClient,
    Backend.REST: RestClient,
    Backend.TEMPORAL: WorkflowClient,
}
REFUSED = [(backend, operation) for backend in Backend for operation in refusals_of(backend)]


@pytest.fixture
def clients(monkeypatch):
    """The clients of a gateway, an Airflow and a Temporal that nothing can reach."""
    monkeypatch.setattr(RestApi, "get", lambda *_, **__: {})
    rest = RestClient("http://127.0.0.1:9")
    monkeypatch.undo()
    temporal = WorkflowClient(retry_for=0)
    yield {
        Backend.GATEWAY: GatewayClient("127.0.0.1:9", "secret", retry_for=0),
        Backend.REST: rest,
        Backend.TEMPORAL: temporal,
    }
    temporal.close()


def call(client, operation):
    """Call an operation with a text for each argument that it needs."""
    method = getattr(client, operation)
    needed = [
        name
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.default is inspect.Parameter.empty
    ]
    return method(**dict.fromkeys(needed, "nothing"))


def test_the_documentation_shows_the_table():
    assert documented_table() in CONNECT.read_text(encoding="utf-8")


def test_each_operation_belongs_to_one_feature():
    listed = [operation for feature in FEATURES for operation in feature.operations]
    assert sorted(listed) == sorted(OPERATIONS)
    for feature in FEATURES:
        for refused in feature.refusals.values():
            assert set(refused) <= set(feature.operations)


def test_the_operations_are_the_methods_of_the_protocol():
    methods = {
        name
        for name, member in vars(StackClient).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    assert methods - {"close", "with_limits", "without_retries"} == set(OPERATIONS)


@pytest.mark.parametrize("backend", Backend)
def test_a_client_implements_what_the_table_does_not_refuse(backend):
    implemented = {name for name in OPERATIONS if name in vars(CLASSES[backend])}
    refused = {name for name, refusal in refusals_of(backend).items() if not refusal.is_conditional}
    assert implemented == set(OPERATIONS) - refused


@pytest.mark.parametrize(("backend", "operation"), REFUSED)
def test_a_refused_operation_says_why_without_a_request(clients, backend, operation):
    with pytest.raises(UnavailableHereError) as caught:
        call(clients[backend], operation)
    refusal = refusals_of(backend)[operation]
    assert (caught.value.message, caught.value.hint) == (refusal.reason, refusal.hint)
    assert caught.value.facts == {"op": operation}


def test_a_conditional_operation_is_available_if_its_condition_holds(monkeypatch):
    monkeypatch.setattr(RestApi, "get", lambda *_, **__: {})
    table = {"columns": {"event_id": [1]}, "rows": 1}
    client = RestClient("http://127.0.0.1:9", events=lambda dag_id, run_id: table)
    assert "get_events_table" not in client.refusals
    assert client.without_retries().get_events_table("etl", "r") == table


def test_a_copy_of_the_rest_client_has_its_own_limits(monkeypatch):
    monkeypatch.setattr(RestApi, "get", lambda *_, **__: {})
    client = RestClient("http://127.0.0.1:9", retry_for=7)
    client.production = "the cluster"
    copied = client.without_retries()
    assert (client.retry_for, copied.retry_for, copied.production) == (7, 0, "the cluster")
