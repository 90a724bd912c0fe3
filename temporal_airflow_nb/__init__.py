"""Airflow DAGs on Temporal, from a notebook cell to a production Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temporal_airflow_nb import aio
    from temporal_airflow_nb.errors import TemporalAirflowError
    from temporal_airflow_nb.frames import compare, dags, pools, runs
    from temporal_airflow_nb.functions import down, run_cell, show, status, ui, up, write_dag
    from temporal_airflow_nb.run import Run
    from temporal_airflow_nb.run_list import Runs
    from temporal_airflow_nb.stack.connect import connect
    from temporal_airflow_nb.stack.local import LocalStack

__version__ = "0.1.0"

__all__ = [
    "LocalStack",
    "Run",
    "Runs",
    "TemporalAirflowError",
    "aio",
    "compare",
    "connect",
    "dags",
    "down",
    "load_ipython_extension",
    "pools",
    "run_cell",
    "runs",
    "show",
    "status",
    "ui",
    "unload_ipython_extension",
    "up",
    "write_dag",
]

_FUNCTIONS = ("down", "run_cell", "show", "status", "ui", "up", "write_dag")
_FRAMES = ("compare", "dags", "pools", "runs")
_HOMES = {
    "LocalStack": "temporal_airflow_nb.stack.local",
    "Run": "temporal_airflow_nb.run",
    "Runs": "temporal_airflow_nb.run_list",
    "TemporalAirflowError": "temporal_airflow_nb.errors",
    "connect": "temporal_airflow_nb.stack.connect",
    **dict.fromkeys(_FUNCTIONS, "temporal_airflow_nb.functions"),
    **dict.fromkeys(_FRAMES, "temporal_airflow_nb.frames"),
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
    from importlib import import_module

    if name == "aio":
        return import_module("temporal_airflow_nb.aio")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
