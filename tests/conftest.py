from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent / "plugins"

# Settings of the person who runs the tests must not steer them.
for _name in [n for n in os.environ if n.startswith(("AIRFLOW", "TEMPORAL_"))]:
    del os.environ[_name]


def pytest_addoption(parser):
    parser.addoption("--home", help="state folder of the stack that tests share; a new one where left out")
    parser.addoption(
        "--seed", type=int, help="first of the random DAGs that run live; a new one where left out"
    )


# Before the plugin for it reads the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep the tests of a file together where files run side by side: they share what is costly to start."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def stack_home(request, tmp_path_factory) -> Path:
    """State folder of the shared stack."""
    chosen = request.config.getoption("--home")
    return Path(chosen).absolute() if chosen else tmp_path_factory.mktemp("stack") / "home"


@pytest.fixture(scope="session")
def stack(stack_home):
    """The embedded stack that tests share: started once, or attached to where ``--home`` has one running."""
    from temporal_airflow_nb import LocalStack

    plugins = stack_home / "airflow" / "plugins"
    shutil.copytree(PLUGINS, plugins, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    with LocalStack(stack_home) as stack:
        yield stack
