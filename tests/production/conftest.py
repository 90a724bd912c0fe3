"""The clusters that the production tests share."""

from __future__ import annotations

import pytest

from tests.production.cluster import HERE, Cluster
from tests.production.postgres import Postgres


def pytest_generate_tests(metafunc):
    """Run every test on SQLite, and those marked ``postgres`` on PostgreSQL too, or only there."""
    if "cluster" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("postgres")
    only = mark is not None and mark.kwargs.get("only", False)
    databases = [] if only else ["sqlite"]
    databases += ["postgres"] if mark is not None else []
    metafunc.parametrize("running_cluster", databases, indirect=True, scope="session")


@pytest.fixture(scope="session")
def postgres():
    """Start a PostgreSQL server."""
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def running_cluster(request, tmp_path_factory):
    """Start the shared cluster of one kind of database; on PostgreSQL with two schedulers and two workers."""
    options = {"dags": [HERE / "dags"], "plugins": HERE / "plugins", "triggerer": True}
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        options |= {"database_url": server.new_database(), "schedulers": 2, "workers": 2}
    settings = {"temporal_airflow": {"dags": "*, !native_*"}}
    with Cluster(tmp_path_factory.mktemp("cluster"), settings=settings, **options) as cluster:
        yield cluster


@pytest.fixture
def cluster(running_cluster) -> Cluster:
    """Return the shared cluster, after starting the services that don't run."""
    running_cluster.heal()
    return running_cluster
