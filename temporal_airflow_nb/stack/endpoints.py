"""Describes what a connection leads to: Airflow's address, Temporal's profile, and whether it is production."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

# Airflow also takes a setting from a command or a secrets backend, which the variables with the suffixes `_CMD` and
# `_SECRET` name.
_CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
_PASSWORD = re.compile(r"(?<=://)([^/@\s]*?):[^@\s]*@")


def database_is_configured(environ: Mapping[str, str]) -> bool:
    """Return whether a metadata database is configured for Airflow. Airflow's default folder doesn't count."""
    if any(environ.get(_CONNECTION + suffix) for suffix in ("", "_CMD", "_SECRET")):
        return True
    return _config_file(environ) is not None


def database_url(environ: Mapping[str, str]) -> str:
    """Return the address of the configured metadata database, without its password, to show it."""
    if url := environ.get(_CONNECTION):
        return masked(url)
    if any(environ.get(_CONNECTION + suffix) for suffix in ("_CMD", "_SECRET")):
        return "named by a command or a secrets backend"
    # Not Airflow's own parser: a notebook must not import Airflow only to show an address.
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    path = _config_file(environ)
    try:
        parser.read(path or [], encoding="utf-8")
    except configparser.Error:
        return f"of {path}"
    url = parser.get("database", "sql_alchemy_conn", fallback=None)
    return masked(url) if url else f"of {path}"


def _config_file(environ: Mapping[str, str]) -> Path | None:
    if chosen := environ.get("AIRFLOW_CONFIG"):
        return Path(chosen).expanduser()
    home = environ.get("AIRFLOW_HOME")
    path = Path(home).expanduser() / "airflow.cfg" if home else None
    return path if path is not None and path.exists() else None


def masked(url: str) -> str:
    """Return an address without its password.

    >>> masked("postgresql://airflow:s3cret@db.example.com/airflow")
    'postgresql://airflow:***@db.example.com/airflow'
    """
    return _PASSWORD.sub(r"\1:***@", url)


def endpoint_names(url: str) -> list[str]:
    """Return the parts of an address that can match a production pattern: host and database name.

    >>> endpoint_names("postgresql://airflow:***@db.example.com/airflow"), endpoint_names("sqlite:////products/airflow.db")
    (['db.example.com', 'airflow'], [])
    """
    parts = urlsplit(url)
    return [name for name in (parts.hostname, parts.path.strip("/")) if name] if parts.hostname else []


def is_production(names: Iterable[str | None], patterns: Iterable[str]) -> bool:
    """Return whether any name matches any pattern, ignoring case.

    >>> is_production(["eu-PROD-1", None], ["*prod*"]), is_production(["staging"], ["*prod*"])
    (True, False)
    """
    wanted = [pattern.lower() for pattern in patterns]
    return any(fnmatchcase(name.lower(), pattern) for name in names if name for pattern in wanted)


def profile_in_use(profile: str | None) -> str | None:
    """Return the name of the Temporal profile in use; None if none was chosen."""
    return profile or os.environ.get("TEMPORAL_PROFILE") or None
