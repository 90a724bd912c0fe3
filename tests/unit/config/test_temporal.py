"""Settings of a profile in temporal.toml reach the client."""

from __future__ import annotations

import pytest
from temporalio.service import TLSConfig

from temporal_airflow_nb.config.temporal import connect_settings
from temporal_airflow_nb.errors import InvalidInputError

PROFILES = """
[profile.default]
address = "localhost:7999"

[profile.mtls]
address = "eu.example.com:7233"
namespace = "etl"
[profile.mtls.tls]
client_cert_data = "a certificate"
client_key_data = "a key"
server_ca_cert_data = "an authority"
server_name = "temporal.example.com"

[profile.cloud]
address = "etl.x1.tmprl.cloud:7233"
namespace = "etl.x1"
api_key = "an api key"
"""


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    (tmp_path / "temporal.toml").write_text(PROFILES)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "temporal.toml"))


def test_certificates_of_a_profile_are_used(profiles):
    assert connect_settings("mtls") == {
        "target_host": "eu.example.com:7233",
        "namespace": "etl",
        "tls": TLSConfig(
            server_root_ca_cert=b"an authority",
            domain="temporal.example.com",
            client_cert=b"a certificate",
            client_private_key=b"a key",
        ),
    }


def test_an_api_key_of_a_profile_turns_tls_on(profiles, monkeypatch):
    wanted = {
        "target_host": "etl.x1.tmprl.cloud:7233",
        "namespace": "etl.x1",
        "api_key": "an api key",
        "tls": True,
    }
    assert connect_settings("cloud") == wanted
    monkeypatch.setenv("TEMPORAL_PROFILE", "cloud")
    assert connect_settings() == wanted
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "other.x1")
    assert connect_settings() == {**wanted, "namespace": "other.x1"}


def test_without_a_choice_the_default_profile_or_this_machine_is_used(profiles, monkeypatch, tmp_path):
    assert connect_settings() == {"target_host": "localhost:7999", "namespace": "default"}
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "none.toml"))
    assert connect_settings() == {"target_host": "localhost:7233", "namespace": "default"}


def test_settings_that_cannot_be_used_are_named(profiles, monkeypatch, tmp_path):
    with pytest.raises(InvalidInputError, match="no profile 'nope'") as raised:
        connect_settings("nope")
    assert "Profiles: cloud, default, mtls." in str(raised.value)
    monkeypatch.setenv("TEMPORAL_PROFILE", "nope")
    with pytest.raises(InvalidInputError, match="no profile 'nope'"):
        connect_settings()
    file = tmp_path / "temporal.toml"
    file.write_text("[profile.default\n")
    with pytest.raises(InvalidInputError, match=rf"in {file} can't be used: .* at line 1"):
        connect_settings("mtls")
    file.write_text(
        '[profile.mtls]\naddress = "x:1"\n[profile.mtls.tls]\nclient_cert_path = "/no/client.pem"\n'
    )
    with pytest.raises(InvalidInputError, match=r"/no/client.pem, a file of Temporal's profile 'mtls',"):
        connect_settings("mtls")
    file.write_text('[profile.mtls]\nadress = "x:1"\n')
    with pytest.raises(InvalidInputError, match="'mtls' has no address"):
        connect_settings("mtls")
