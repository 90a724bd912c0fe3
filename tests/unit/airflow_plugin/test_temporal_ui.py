"""The addresses of Temporal's UI."""

from __future__ import annotations

import pytest

from temporal_airflow_nb.airflow_plugin.temporal_ui import CLOUD, service_ui, ui_url, workflow_url
from temporal_airflow_nb.errors import InvalidInputError


@pytest.mark.parametrize(
    ("address", "ui"),
    [
        ("localhost:7233", "http://localhost:8233"),
        ("127.0.0.1:21000", "http://127.0.0.1:22000"),
        ("[::1]:7233", "http://[::1]:8233"),
        ("etl.a1b2c.tmprl.cloud:7233", CLOUD),
        ("us-east-1.aws.api.temporal.io:7233", CLOUD),
        ("faketmprl.cloud:7233", ""),
        ("temporal.internal:7233", ""),
        ("localhost", ""),
        ("localhost:port", ""),
        ("", ""),
    ],
)
def test_the_ui_follows_from_the_address_of_the_service(address, ui):
    assert service_ui(address) == ui


def test_the_address_of_a_workflow_quotes_its_names():
    row = {
        "namespace": "a/b",
        "workflow_id": "airflow-d-manual__2026-01-01T00:00:00+00:00",
        "temporal_run_id": "1",
    }
    assert workflow_url("http://t", row) == (
        "http://t/namespaces/a%2Fb/workflows/airflow-d-manual__2026-01-01T00%3A00%3A00%2B00%3A00/1/history"
    )


@pytest.mark.parametrize("configured", ["https://temporal.internal/ui", "/user/me/proxy/absolute/8233"])
def test_the_setting_overrides_the_address_of_the_ui(configured, monkeypatch):
    monkeypatch.setenv("AIRFLOW__TEMPORAL_AIRFLOW__UI_URL", f"{configured}/")
    assert ui_url("127.0.0.1:7233") == configured


def test_a_setting_that_is_not_an_address_is_refused(monkeypatch):
    monkeypatch.setenv("AIRFLOW__TEMPORAL_AIRFLOW__UI_URL", "temporal.internal")
    with pytest.raises(InvalidInputError, match=r"ui_url = temporal\.internal`"):
        ui_url()
