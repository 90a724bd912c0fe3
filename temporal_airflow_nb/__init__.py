"""Airflow DAGs on Temporal, from a notebook cell to a production Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temporal_airflow_nb.errors import TemporalAirflowError
    from temporal_airflow_nb.run import Run
    from temporal_airflow_nb.stack.connect import connect
    from temporal_airflow_nb.stack.local import LocalStack

__version__ = "0.1.0"

__all__ = [
    "LocalStack",
    "Run",
    "TemporalAirflowError",
    "connect",
    "load_ipython_extension",
    "unload_ipython_extension",
]

_HOMES = {
    "LocalStack": "temporal_airflow_nb.stack.local",
    "Run": "temporal_airflow_nb.run",
    "TemporalAirflowError": "temporal_airflow_nb.errors",
    "connect": "temporal_airflow_nb.stack.connect",
}


def load_ipython_extension(ipython: Any) -> None:
    """Register the magics: what ``%load_ext temporal_airflow_nb`` calls."""
    from temporal_airflow_nb.notebook import load_ipython_extension as load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Take the magics away: what ``%unload_ext temporal_airflow_nb`` calls."""
    from temporal_airflow_nb.notebook import unload_ipython_extension as unload

    unload(ipython)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
