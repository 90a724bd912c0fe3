"""Checks the version of the installed Airflow without importing it."""

from __future__ import annotations

import importlib.metadata

from temporal_airflow_nb.config.environment import AIRFLOW_MINOR
from temporal_airflow_nb.errors import UnsupportedVersionError

_DISTRIBUTIONS = ("apache-airflow-core", "apache-airflow")


def check_airflow() -> str:
    """Return the version of the installed Airflow.

    Raises
    ------
    UnsupportedVersionError
        Airflow isn't installed, or its minor version isn't the one that this package supports. ``facts``: ``version``.
    """
    for name in _DISTRIBUTIONS:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if version.split(".")[:2] == AIRFLOW_MINOR.split("."):
            return version
        raise UnsupportedVersionError(
            f"Airflow {version} is installed, and this package works with Airflow {AIRFLOW_MINOR}.",
            hint=f"Install that version: pip install 'apache-airflow=={AIRFLOW_MINOR}.*'",
            version=version,
        )
    raise UnsupportedVersionError(
        "Airflow is not installed in this environment.",
        hint=f"Install it: pip install 'apache-airflow=={AIRFLOW_MINOR}.*'",
        version=None,
    )
