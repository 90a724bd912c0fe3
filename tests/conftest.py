from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

import tests.support.startup.sitecustomize  # noqa: F401

pytest_plugins = ["tests.support.shells"]

DATABASES = ("sqlite", "postgres")
BY_CASE = ("compatibility/test_semantics.py", "compatibility/test_random.py")
WITH_UI = (
    "browser/test_foreign_requests.py",
    "client/test_rest.py",
    "orchestration/test_history_privacy.py",
    "stack/test_ui_stack.py",
)
PLUGINS = Path(__file__).parent / "compatibility" / "plugins" / "examples"

# Settings of the person who runs the tests must not steer them.
for _name in [n for n in os.environ if n.startswith(("AIRFLOW", "TEMPORAL_"))]:
    del os.environ[_name]

# All processes that the tests start read `sitecustomize.py` there.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent / "support" / "startup"), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# A shell that starts the tests in the background has them, and all they start, ignore Ctrl-C; some tests send it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--home", help="state folder of the stack that tests share; a new one where left out")
    parser.addoption(
        "--seed", type=int, help="first of the random DAGs that run live; a new one where left out"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep tests together, where they run side by side, that share what is costly to start."""
    from xdist.scheduler import LoadScopeScheduling

    class SharingTests(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return scope_of(nodeid)

    return SharingTests(config, log)


def scope_of(nodeid: str) -> str:
    """Return the file of a test; of the oracle's tests, which run the DAGs of a case together, the case.

    Tests on a cluster as in production share one for each kind of database, and those of some files a stack with a UI.

    >>> scope_of("tests/integration/api/test_functions.py::test_a[x-y]")
    'tests/integration/api/test_functions.py'
    >>> scope_of("tests/compatibility/test_random.py::test_b[random_3-random_97]")
    'tests/compatibility/test_random.py random_3'
    """
    file, _, test = nodeid.partition("::")
    case = re.search(r"\[(\w+)", test)
    if case and case[1] in DATABASES and file.startswith("tests/production/"):
        return f"tests/production {case[1]}"
    if file.endswith(WITH_UI):
        return "the stack with a UI"
    return f"{file} {case[1]}" if case and file.endswith(BY_CASE) else file


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


@pytest.fixture(scope="session")
def ui_stack(tmp_path_factory):
    """
    A stack with Airflow's UI that tests share, on SQLite.

    ``ui_stack.register_folder(folder)`` has the DAGs of a folder appear in it, paused as Airflow has new ones.
    """
    from temporal_airflow_nb import LocalStack

    home = tmp_path_factory.mktemp("ui stack") / "home"
    # Modules that are put there while it runs can be imported only if the folder was there before.
    (home / "airflow" / "plugins").mkdir(parents=True)
    with LocalStack(home, ui=True) as stack:
        yield stack


@pytest.fixture(scope="session")
def airflow_api(ui_stack):
    """The REST API of ``ui_stack``."""
    from tests.support.airflow_api import AirflowApi

    return AirflowApi(ui_stack.links["airflow"])
