"""The Compose file, as far as it can be checked without Docker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from temporal_airflow_nb import __version__
from temporal_airflow_nb.config.environment import ORCHESTRATOR
from temporal_airflow_nb.stack.services.temporal_server import SEARCH_ATTRIBUTES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
ONCE = {"airflow-migrate"}
AIRFLOW = {"airflow-apiserver", "airflow-dag-processor", "airflow-scheduler", "temporal-worker", *ONCE}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
SERVICE_KEYS = {
    *("build", "image", "environment", "volumes", "restart", "depends_on", "command", "entrypoint"),
    *("ports", "healthcheck", "stop_grace_period"),
}


def test_the_file_has_six_services():
    assert set(SERVICES) == {"temporal", "postgres", *AIRFLOW}
    assert set(COMPOSE) == {"name", "x-airflow", "services", "volumes"}
    for service in SERVICES.values():
        assert set(service) <= SERVICE_KEYS


def test_images_are_pinned():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    images = {service["image"] for service in SERVICES.values()}
    for image in (*bases, *images):
        assert re.fullmatch(r"[a-z/-]+:[a-z-]*\d+\.\d+[\w.-]*", image), image
    assert f"temporal-airflow-nb:{__version__}" in images
    airflow = re.search(r"^apache-airflow==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert [f"apache/airflow:slim-{airflow}-python3.11"] == bases
    assert f"apache-airflow=={airflow}" in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_has_a_health_check_and_starts_after_its_dependencies(name):
    service = SERVICES[name]
    if name not in ONCE:
        check = service["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL")
        assert {"interval", "timeout", "retries"} <= set(check)
        assert service["restart"] == "unless-stopped"
    for needed, how in service.get("depends_on", {}).items():
        assert needed in SERVICES
        assert how["condition"] in CONDITIONS
        assert how["condition"] == ("service_completed_successfully" if needed in ONCE else "service_healthy")
    if name in AIRFLOW - ONCE:
        assert {"postgres", "airflow-migrate"} <= set(service["depends_on"])
    for port in service.get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)
    for volume in service.get("volumes", []):
        source = volume.split(":/")[0]
        assert source in COMPOSE["volumes"] or source.startswith("${DAGS_FOLDER")


def test_all_processes_of_airflow_have_the_same_settings():
    environments = [SERVICES[name]["environment"] for name in AIRFLOW]
    assert all(environment == environments[0] for environment in environments)
    assert environments[0]["AIRFLOW__CORE__ORCHESTRATOR"] == ORCHESTRATOR
    assert {SERVICES[name]["image"] for name in AIRFLOW} == {f"temporal-airflow-nb:{__version__}"}


def test_temporal_has_the_search_attributes():
    for attribute in SEARCH_ATTRIBUTES:
        assert f"--search-attribute={attribute}=Keyword" in SERVICES["temporal"]["command"]
    names = " ".join(f"--name {attribute}" for attribute in SEARCH_ATTRIBUTES)
    assert f"{names} --type Keyword" in (DEPLOY / "README.md").read_text()


def test_secrets_come_from_a_file_that_is_not_committed():
    text = (DEPLOY / "compose.yaml").read_text()
    wanted = set(re.findall(r"\$\{(\w+)", text))
    example = dict(
        line.split("=", 1)
        for line in (DEPLOY / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert wanted == set(example)
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required == {name for name, value in example.items() if not value}
    assert {name for name in wanted if re.search("PASSWORD|KEY|SECRET", name)} == required
    assert ".env" in (DEPLOY / ".gitignore").read_text().split()
    assert not (DEPLOY / ".env").exists()


def test_the_files_of_the_image_exist():
    kept = [
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    copied = re.findall(r"^COPY --chown=\S+ (.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert sorted(" ".join(copied).split()) == sorted(kept)
    for name in kept:
        assert (ROOT / name).exists()
